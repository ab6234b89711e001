#!/bin/sh
# Plays the units under a real systemd: two load balancers and a witness, each a
# container of its own whose process 1 is systemd, installed by install.sh. Checks
# the start, the line in `systemctl status`, the rating of the hardening, upgrades
# in place, hand-overs, a sidecar that dies, one that freezes, a wrong setting, a reload of
# the keys, a machine that shuts down, and the removal. What a client notices is
# counted by one that opens a new connection about every 10 ms.
#
#	try.sh BINARY [IMAGE]  IMAGE: as `base` makes it
#
# It needs a Docker engine and root, and leaves nothing behind.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$1 image=${2:-$("$here/base")}
net=tandemtry$$ sub=10.89.77
work=$(mktemp -d)

clean() {
	docker rm -fv "$net-lb1" "$net-lb2" "$net-witness" >/dev/null 2>&1 || true
	docker network rm "$net" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

fail() {
	echo "FAILED: $*" >&2
	for name in lb1 lb2; do
		on $name systemctl status --no-pager -n 0 tandem >&2 || true
		on $name journalctl -u tandem --no-pager -n 20 >&2 || true
	done
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
has() { on "$1" ip -o addr show dev eth0 2>/dev/null | grep -q "$sub.100/"; }
has_not() { ! has "$1"; }
# Whom clients reach. After a move both have the address, for TANDEM_MOVE_GRACE.
holder() {
	# shellcheck disable=SC2016 # the variables are those of the shell in there
	on witness timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/80"; printf "GET / HTTP/1.0\r\n\r\n" >&3; tail -n 1 <&3' "$sub.100" 2>/dev/null || true
}
holds() { [ "$(holder)" = "$1" ]; }
other() { [ "$1" = lb1 ] && echo lb2 || echo lb1; }
ms() { date +%s%3N; }
property() { on "$1" systemctl show -P "$2" tandem; }
status_says() { property "$1" StatusText | grep -q "$2"; }
restarted() { [ "$(property "$1" NRestarts)" -ge "$2" ]; }
running() { on "$1" systemctl show -P Version; }
healthy() { status_says lb1 healthy && status_says lb2 healthy; }

# The client, on the witness: a line for each request.
client_begins() {
	on witness rm -f /tmp/client /tmp/client.pid
	# shellcheck disable=SC2016 # the variables are those of the shell in there
	docker exec -d "$net-witness" bash -c 'echo $$ >/tmp/client.pid
		while :; do
			timeout 1 bash -c "exec 3<>/dev/tcp/$0/80; printf \"GET / HTTP/1.0\r\n\r\n\" >&3; grep -q 200 <&3" 2>/dev/null &&
				echo ok || echo "failed $(date +%T.%3N)"
			sleep 0.005
		done >/tmp/client' "$sub.100"
}
served() { [ "$(on witness grep -c ok /tmp/client)" -ge "$1" ]; }
client_ends() { # WHAT: nothing may have failed
	until_ok 20 "a client that is served" served 100
	on witness kill "$(on witness cat /tmp/client.pid)"
	answered=$(on witness grep -c ok /tmp/client || true) failed=$(on witness grep -c failed /tmp/client || true)
	echo "$1: of $((answered + failed)) new connections $failed failed"
	[ "$failed" = 0 ] || fail "clients noticed it: $(on witness grep -m 5 failed /tmp/client)"
}

machine() { # NAME LAST-BYTE
	docker run -d --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW --cap-add SYS_NICE --cap-add SYS_PTRACE \
		--security-opt seccomp=unconfined --name "$net-$1" --hostname "$1" --network "$net" --ip "$sub.$2" \
		--stop-signal SIGRTMIN+3 --tmpfs /run --tmpfs /tmp --cgroupns private -e container=docker "$image" /sbin/init >/dev/null
}
install() { # NAME ROLE, twice: the second time changes nothing
	on "$1" mkdir -p /opt/tandem /etc/tandem
	docker cp "$here/." "$net-$1:/opt/tandem/" >/dev/null
	docker cp "$binary" "$net-$1:/opt/tandem/tandem" >/dev/null
	docker cp "$work/key" "$net-$1:/etc/tandem/key" >/dev/null
	on "$1" sh /opt/tandem/install.sh "$2" /opt/tandem/tandem >/dev/null
	on "$1" sed -i "s/^TANDEM_NODE=.*/TANDEM_NODE=$1/; s/10\.0\.0\./$sub./g; /HAPROXY_CFG/d; /STATE_FILE/d" /etc/tandem/tandem.env
	on "$1" sh -c 'find /etc/tandem /etc/systemd/system/tandem.service /usr/local/bin/tandem -exec md5sum {} + 2>/dev/null >/tmp/before
		stat -c "%a %U %G %n" /etc/tandem /etc/tandem/* >>/tmp/before'
	on "$1" sh /opt/tandem/install.sh "$2" /opt/tandem/tandem >/dev/null
	on "$1" sh -c 'find /etc/tandem /etc/systemd/system/tandem.service /usr/local/bin/tandem -exec md5sum {} + 2>/dev/null >/tmp/after
		stat -c "%a %U %G %n" /etc/tandem /etc/tandem/* >>/tmp/after; cmp /tmp/before /tmp/after' || fail "the second installation changed something"
}
haproxy() {
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
		  http-request return status 200 content-type text/plain string $1
	CFG
	docker cp "$work/haproxy.cfg" "$net-$1:/etc/haproxy/haproxy.cfg" >/dev/null
	on "$1" sh -c 'mkdir -p /run/haproxy && systemctl restart haproxy'
}

docker network create --subnet "$sub.0/24" "$net" >/dev/null
head -c 32 /dev/urandom | base64 >"$work/key"
machine lb1 11
machine lb2 12
machine witness 13
for name in lb1 lb2 witness; do
	until_ok 30 "systemd on $name" running "$name"
	if [ $name = witness ]; then
		install $name witness
	else
		install $name lb
		haproxy $name
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
for name in lb1 witness; do
	echo "$name: $(on $name systemd-analyze security tandem --no-pager | tail -n 1)"
done

# upgrades in place: by command, by signal, and one that is refused
upgraded() { [ "$(on lb1 tandem history | grep -c in-place)" = "$1" ] && on lb1 systemctl is-active --quiet tandem; }
same() {
	[ "$(property lb1 MainPID) $(property lb1 NRestarts)" = "$1" ] || fail "another process: $(property lb1 MainPID) $(property lb1 NRestarts), was $1"
	holds lb1 || fail "the address has moved to $(holder)"
}
client_begins
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
client_ends "upgrades in place, the same process still holds the address"

# An orderly stop hands over. The two machines share a clock.
until_ok 40 "the end of the move at the beginning" has_not "$(other "$(holder)")"
client_begins
took=
for _ in 1 2 3 4 5; do
	from=$(holder)
	to=$(other "$from")
	# shellcheck disable=SC2016
	on "$to" sh -c 'timeout 20 ip -o monitor address | while read -r line; do
		case $line in *" $0/"*) date +%s%3N >/tmp/took; break ;; esac
	done' "$sub.100" &
	waiting=$!
	sleep 0.5
	on "$from" sh -c 'date +%s%3N >/tmp/began; exec systemctl restart tandem'
	wait "$waiting"
	took="$took $(($(on "$to" cat /tmp/took) - $(on "$from" cat /tmp/began)))"
	until_ok 3 "$to holds the address after the restart of $from" holds "$to"
	until_ok 15 "all healthy after a restart" healthy
done
client_ends "five restarts of the holder, the other had the address after$took ms"
on "$to" tandem history | tail -n 4

# who dies is started again, who freezes too
for signal in KILL ABRT; do # a panic ends it as ABRT does
	from=$(holder)
	count=$(property "$from" NRestarts)
	on "$from" kill -s $signal "$(property "$from" MainPID)"
	until_ok 10 "restart of a sidecar that died of $signal" restarted "$from" $((count + 1))
	until_ok 15 "all healthy after $signal" healthy
	echo "died of $signal: started again"
done
from=$(holder)
count=$(property "$from" NRestarts)
began=$(ms)
on "$from" kill -STOP "$(property "$from" MainPID)"
until_ok 60 "watchdog" restarted "$from" $((count + 1))
until_ok 30 "start after the watchdog" on "$from" systemctl is-active --quiet tandem
echo "watchdog: a frozen sidecar takes part again after $(($(ms) - began)) ms; $(on "$from" journalctl -u tandem --no-pager -q | grep -c 'Watchdog timeout') time-out in the journal"
until_ok 15 "all healthy after the watchdog" healthy

# a wrong setting ends it for good, and says why
to=$(other "$(holder)")
on "$to" sh -c 'cp -a /etc/tandem/tandem.env /tmp/right; echo TANDEM_LEASE=soon >>/etc/tandem/tandem.env'
on "$to" systemctl restart tandem 2>/dev/null && fail "it starts with a wrong setting"
sleep 2
[ "$(property "$to" ActiveState)" = failed ] || fail "with a wrong setting it is $(property "$to" ActiveState)"
on "$to" journalctl -u tandem --no-pager -q -n 20 | grep -q 'TANDEM_LEASE' || fail "the journal does not name the setting"
on "$to" sh -c 'cp -a /tmp/right /etc/tandem/tandem.env; systemctl start tandem'
until_ok 15 "all healthy after a wrong setting" healthy
echo "a wrong setting: not started again, and named in the journal"

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

# a machine that shuts down: the sidecar ends before HAProxy
from=$(holder)
client_begins
sleep 0.5
docker stop --time 60 "$net-$from" >/dev/null
client_ends "the holder's machine was shut down"
docker start "$net-$from" >/dev/null
until_ok 30 "systemd on $from again" running "$from"
on "$from" sh -c 'mkdir -p /run/haproxy; systemctl restart haproxy; systemctl start tandem'
until_ok 15 "all healthy after a shutdown" healthy

for name in lb1 lb2 witness; do
	on "$name" sh /opt/tandem/install.sh remove --purge >/dev/null
	on "$name" sh /opt/tandem/install.sh remove --purge >/dev/null # again
	on "$name" sh -c '! test -e /etc/tandem -o -e /usr/local/bin/tandem -o -e /var/lib/tandem && ! getent passwd tandem' || fail "something is left on $name"
done
for name in lb1 lb2; do has_not $name || fail "the address is left on $name"; done
on lb1 sh -c '! nft list tables | grep -q tandem' || fail "the gate is left"
echo "removed without a trace"
