#!/bin/sh
# The reporting connector reads the queue of the active site only.
. "$(dirname "$0")/common.sh"
journal begin
service start reporting
journal end
