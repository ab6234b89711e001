#!/bin/sh
# Tells the messaging platform where to call from now on. A failure is told by
# the exit code; tandem tries again until it succeeds or the site has changed
# again, and holds nothing up meanwhile.
. "$(dirname "$0")/common.sh"
[ "$TANDEM_EVENT" = notify ] || exit 0 # where a virtual IP is does not concern the platform
journal begin
body="{\"url\":\"$HYBRIDCHAT_ADDRESS\",\"site\":\"$TANDEM_TO\",\"epoch\":$TANDEM_EPOCH}"
if [ -n "${HYBRIDCHAT_REGISTER:-}" ]; then
	"$HYBRIDCHAT_REGISTER" register "$HYBRIDCHAT_PLATFORM" "$body"
else
	curl --fail --silent --show-error --max-time 5 --request PUT \
		--header 'Content-Type: application/json' --data "$body" "$HYBRIDCHAT_PLATFORM"
fi
journal end
