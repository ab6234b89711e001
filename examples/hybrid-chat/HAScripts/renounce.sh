#!/bin/sh
# This site is active no more: stop what may run on one site only.
. "$(dirname "$0")/common.sh"
journal begin
service stop comm mre chat
journal end
