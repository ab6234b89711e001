#!/bin/sh
# Plays the units under a real systemd: two load balancers and a witness, each
# a container of its own whose process 1 is systemd, installed by install.sh.
# Checks the start, the line in `systemctl status`, upgrades in place, a hand-over
# by `systemctl restart`, the watchdog, a reload of the keys, and the removal.
#
#	try.sh BINARY IMAGE    IMAGE: Debian with systemd, haproxy, iproute2 and
#	                       nftables, for example of `debootstrap --variant=minbase
#	                       --include=systemd,systemd-sysv,haproxy,iproute2,nftables`
#
# It needs a docker engine and root, and leaves nothing behind.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 image=$2
net=tandemtry$$ sub=10.89.77
work=$(mktemp -d)

clean() {
	docker rm -f "$net-lb1" "$net-lb2" "$net-witness" >/dev/null 2>&1 || true
	docker network rm "$net" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

fail() {
	echo "FAILED: $*" >&2
	on lb1 journalctl -u tandem --no-pager -n 30 >&2 || true
	exit 1
}
on() {
	node=$1
	shift
	docker exec "$net-$node" "$@"
}
until_ok() { # SECONDS WHAT COMMAND...
	end=$(($(date +%s) + $1)) what=$2
	shift 2
	while ! "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$end" ] || fail "$what"
		sleep 0.1
	done
}
holder() { for n in lb1 lb2; do on "$n" ip -o addr show dev eth0 2>/dev/null | grep -q "$sub.100/" && echo "$n"; done; }
holds() { [ "$(holder)" = "$1" ]; }
ms() { date +%s%3N; }
property() { on "$1" systemctl show -P "$2" tandem; }
status_says() { property "$1" StatusText | grep -q "$2"; }
restarts() { [ "$(property lb1 NRestarts)" -ge 1 ]; }
running() { on "$1" systemctl show -P Version; }

docker network create --subnet "$sub.0/24" "$net" >/dev/null
head -c 32 /dev/urandom | base64 >"$work/key"
for n in lb1:11 lb2:12 witness:13; do
	name=${n%:*}
	docker run -d --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW --cap-add SYS_NICE --cap-add SYS_PTRACE \
		--security-opt seccomp=unconfined --name "$net-$name" --hostname "$name" --network "$net" --ip "$sub.${n#*:}" \
		--tmpfs /run --tmpfs /tmp --cgroupns private -e container=docker "$image" /sbin/init >/dev/null
done
for name in lb1 lb2 witness; do
	until_ok 30 "systemd on $name" running "$name"
	on "$name" mkdir -p /opt/tandem /etc/tandem
	docker cp "$here/." "$net-$name:/opt/tandem/" >/dev/null
	docker cp "$binary" "$net-$name:/opt/tandem/tandem" >/dev/null
	docker cp "$work/key" "$net-$name:/etc/tandem/key" >/dev/null
	role=lb
	[ "$name" = witness ] && role=witness
	on "$name" sh /opt/tandem/install.sh "$role" /opt/tandem/tandem >/dev/null
	on "$name" sh /opt/tandem/install.sh "$role" /opt/tandem/tandem >/dev/null # again
	on "$name" sed -i "s/^TANDEM_NODE=.*/TANDEM_NODE=$name/; s/10\.0\.0\./$sub./g; /HAPROXY_CFG/d; /STATE_FILE/d" /etc/tandem/tandem.env
	if [ $role = lb ]; then
		cat >"$work/haproxy.cfg" <<-CFG
			global
			  stats socket /run/haproxy/tandem.sock user tandem group tandem mode 600 level admin
			  stats maxconn 20
			defaults
			  mode http
			  timeout connect 1s
			  timeout client 30s
			  timeout server 30s
			frontend web
			  bind :80
			  http-request return status 200 content-type text/plain string $name
		CFG
		docker cp "$work/haproxy.cfg" "$net-$name:/etc/haproxy/haproxy.cfg" >/dev/null
		on "$name" sh -c 'mkdir -p /run/haproxy && systemctl restart haproxy'
	fi
done

# start: systemctl returns when the node takes part
began=$(ms)
for name in lb1 lb2 witness; do on "$name" systemctl --no-block start tandem; done
for name in lb1 lb2 witness; do until_ok 30 "start of $name" on "$name" systemctl is-active --quiet tandem; done
echo "ready: all three after $(($(ms) - began)) ms"
until_ok 20 "an address" on lb1 tandem move --to lb1 # the other may have been there first
until_ok 20 "address on lb1" holds lb1
until_ok 10 "status line" status_says lb1 "healthy, holds vip/default"
echo "status line of lb1: $(property lb1 StatusText)"
on lb1 systemd-analyze security tandem --no-pager | tail -n 1

# upgrades in place: by command, by signal, and one that is refused
upgraded() { [ "$(on lb1 tandem history | grep -c in-place)" = "$1" ] && on lb1 systemctl is-active --quiet tandem; }
same() {
	[ "$(property lb1 MainPID) $(property lb1 NRestarts)" = "$1" ] || fail "another process: $(property lb1 MainPID) $(property lb1 NRestarts), was $1"
	holds lb1 || fail "the address has moved to $(holder)"
}
process="$(property lb1 MainPID) $(property lb1 NRestarts)"
on lb1 sh /opt/tandem/install.sh lb /opt/tandem/tandem >/dev/null
on lb1 tandem restart
upgraded 1 || fail "not active, or not told, after an upgrade"
on lb1 systemctl kill -s USR2 --kill-who=main tandem
until_ok 10 "an upgrade by signal" upgraded 2
same "$process"
on lb1 sh -c 'printf "#!/bin/sh\nexit 1\n" >/root/broken && chmod 755 /root/broken && mv /root/broken /usr/local/bin/tandem'
if on lb1 /opt/tandem/tandem restart; then
	fail "a broken program was taken"
fi
same "$process"
on lb1 sh /opt/tandem/install.sh lb /opt/tandem/tandem >/dev/null
until_ok 10 "status line after the upgrades" status_says lb1 "healthy, holds vip/default"
echo "upgrades in place: the same process still holds the address"

# an orderly stop hands over
on lb2 sh -c "while ! ip -o addr show dev eth0 | grep -q '$sub.100/'; do :; done; date +%s%3N >/tmp/took" &
waiting=$!
sleep 1
began=$(ms)
on lb1 systemctl restart tandem
back=$(ms)
wait "$waiting"
echo "restart of the holder: lb2 has the address $(($(on lb2 cat /tmp/took) - began)) ms after systemctl restart began, lb1 is back after $((back - began)) ms"
holds lb2 || fail "lb2 does not hold the address after the restart"
on lb2 tandem history | tail -n 4

# the watchdog restarts a sidecar that hangs
until_ok 10 "lb1 healthy again" status_says lb1 healthy
began=$(ms)
on lb1 kill -STOP "$(property lb1 MainPID)"
until_ok 60 "watchdog" restarts
until_ok 30 "start after the watchdog" on lb1 systemctl is-active --quiet tandem
echo "watchdog: a frozen sidecar takes part again after $(($(ms) - began)) ms; $(on lb1 journalctl -u tandem --no-pager -q | grep -c 'Watchdog timeout') time-out in the journal"

# a reload reads the keys again
head -c 32 /dev/urandom | base64 >"$work/new"
printf '%s,%s\n' "$(cat "$work/key")" "$(cat "$work/new")" >"$work/both"
for name in lb1 lb2 witness; do
	docker cp "$work/both" "$net-$name:/etc/tandem/key" >/dev/null
	on "$name" chown root:tandem /etc/tandem/key
	on "$name" chmod 640 /etc/tandem/key
	on "$name" systemctl reload tandem
done
docker cp "$work/new" "$net-lb1:/root/new" >/dev/null
on lb1 tandem keys /root/new --wait --timeout 20s | tail -n 1

for name in lb1 lb2 witness; do
	on "$name" sh /opt/tandem/install.sh remove --purge >/dev/null
	on "$name" sh /opt/tandem/install.sh remove --purge >/dev/null # again
	on "$name" sh -c '! test -e /etc/tandem -o -e /usr/local/bin/tandem -o -e /var/lib/tandem && ! getent passwd tandem' || fail "something is left on $name"
done
[ -z "$(holder)" ] || fail "the address is left"
on lb1 sh -c '! nft list tables | grep -q tandem' || fail "the gate is left"
echo "removed without a trace"
