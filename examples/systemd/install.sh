#!/bin/sh
# Installs the sidecar as a service of systemd, or removes it.
#
#	install.sh lb|witness [BINARY]   binary: bin/tandem unless given
#	install.sh remove [--purge]      --purge: settings, key and state as well
#
# It may be run again: the binary and the unit are replaced, settings and key
# are left as they are. It starts and restarts nothing: `systemctl restart
# tandem` when you are ready, or for an upgrade `tandem restart`, which keeps the
# address where it is. DESTDIR prepares a directory in place of this
# machine; no user is made and systemd is not told then.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}
bin=$root/usr/local/bin/tandem
unit=$root/etc/systemd/system/tandem.service
conf=$root/etc/tandem

fail() {
	echo "install.sh: $*" >&2
	exit 2
}

# live says whether this machine itself is meant, and not a directory.
live() { [ -z "$root" ]; }

# owned makes a file or directory readable by the group of the service.
owned() {
	mode=$1
	shift
	if live; then
		chown root:tandem "$@"
	fi
	chmod "$mode" "$@"
}

# replace puts a file in place in one step, so that nobody meets half of it.
replace() {
	mkdir -p "$(dirname "$3")"
	cp "$2" "$3.new"
	chmod "$1" "$3.new"
	mv -f "$3.new" "$3"
}

reload() {
	if live && [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
}

add() {
	role=$1
	binary=${2:-$here/../../bin/tandem}
	[ -x "$binary" ] || fail "there is no program at $binary: make build, or name it"
	case $role in
	lb) from=tandem.service ;;
	*) from=tandem-witness.service ;;
	esac
	if live; then
		[ "$(id -u)" = 0 ] || fail "run it as root, or set DESTDIR"
		if ! getent passwd tandem >/dev/null; then
			useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tandem
		fi
	fi
	replace 755 "$binary" "$bin"
	replace 644 "$here/$from" "$unit"
	mkdir -p "$conf"
	owned 750 "$conf"
	if [ ! -e "$conf/tandem.env" ]; then
		replace 640 "$here/$role.env" "$conf/tandem.env"
		echo "edit $conf/tandem.env before the first start"
	fi
	owned 640 "$conf/tandem.env"
	if [ -e "$conf/key" ]; then
		owned 640 "$conf/key"
	else
		echo "put the key of the cluster into $conf/key (openssl rand -base64 32, the same on all nodes), mode 640, group tandem"
	fi
	reload
	echo "installed; the first time: systemctl enable --now tandem; for an upgrade: tandem restart, which keeps the address; after a change of settings: systemctl restart tandem"
}

remove() {
	if live; then
		[ "$(id -u)" = 0 ] || fail "run it as root, or set DESTDIR"
		if [ -e "$unit" ] && [ -d /run/systemd/system ]; then
			systemctl disable --now tandem
		fi
	fi
	rm -f "$unit" "$bin"
	reload
	if [ "${1:-}" != --purge ]; then
		echo "removed; $conf and the state are left (remove --purge takes them too)"
		return
	fi
	rm -rf "$conf" "$root/var/lib/tandem"
	if live && getent passwd tandem >/dev/null; then
		userdel tandem
	fi
	echo "removed"
}

case ${1:-} in
lb | witness) add "$@" ;;
remove)
	case ${2:-} in
	"" | --purge) remove "${2:-}" ;;
	*) fail "usage: install.sh remove [--purge]" ;;
	esac
	;;
*) fail "usage: install.sh lb|witness [BINARY], or install.sh remove [--purge]" ;;
esac
