#!/bin/sh
# May this site become active? Not while somebody works on it: then the file
# not-now says why, and that is what whoever asks for the site is told.
. "$(dirname "$0")/common.sh"
journal begin
if [ -e "$HYBRIDCHAT_DIR/not-now" ]; then
	echo "not now: $(cat "$HYBRIDCHAT_DIR/not-now")"
	exit 1
fi
journal end
