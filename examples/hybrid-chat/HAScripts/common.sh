# Read by the scripts beside it.
set -eu

# The journal of this machine: when which script ran, and what for.
journal() {
	echo "$(date +%s%N) $(basename "$0") $* epoch=${TANDEM_EPOCH:-} reason=${TANDEM_REASON:-}" >>"$HYBRIDCHAT_DIR/ha.log"
}

# service start|stop NAME…: with systemd, or with whatever HYBRIDCHAT_SERVICE
# names (the stand-ins of the example).
service() {
	verb=$1
	shift
	for name in "$@"; do
		if [ -n "${HYBRIDCHAT_SERVICE:-}" ]; then
			"$HYBRIDCHAT_SERVICE" "$verb" "$name"
		else
			systemctl "$verb" "hybrid-chat-$name.service"
		fi
	done
}
