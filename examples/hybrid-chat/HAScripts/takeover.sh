#!/bin/sh
# This site becomes active: start what may run on one site only. Starting what
# runs already is no error, so that the script may be run again.
. "$(dirname "$0")/common.sh"
journal begin
service start comm mre chat
journal end
