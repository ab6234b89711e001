#!/bin/sh
. "$(dirname "$0")/common.sh"
journal begin
service stop reporting
journal end
