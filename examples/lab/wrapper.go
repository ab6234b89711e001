package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// Wrapper writes a script that runs a command on a node as its owner would,
// with the environment of its sidecar, and returns the path:
//
//	/tmp/tdlab12-0/lb1/run tandem status
func (l *Lab) Wrapper(node string) (string, error) {
	n := l.Node(node)
	enter := ""
	if os.Getenv(rootlessEnv) != "" {
		enter = fmt.Sprintf("nsenter --target %d --user --mount --preserve-credentials ", os.Getpid())
	}
	path := "$PATH:/usr/sbin:/sbin"
	if t, ok := l.System.(Tandem); ok {
		path = filepath.Dir(t.Program) + ":" + path
	}
	script := fmt.Sprintf("#!/bin/sh\n# Runs a command on %s.\nPATH=%s\n[ -e '%[3]s/tandem.env' ] && . '%[3]s/tandem.env'\nexec %[4]sip netns exec %[5]s \"$@\"\n",
		node, path, n.Dir, enter, n.NS)
	file := filepath.Join(n.Dir, "run")
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		return "", fmt.Errorf("write script: %w", err)
	}
	return file, nil
}
