package lab

import (
	"encoding/json"
	"fmt"
	"os"
)

// The environment variables by which the program, started again, learns that
// it is to be a client, a server, a busy loop or a flood.
const (
	childEnv = "TDLAB_CHILD"
	childArg = "TDLAB_ARGS"
)

// Child turns the program into the part of the lab that its environment asks
// for and does not return; without such a wish it does nothing. Call it first
// thing in main or TestMain.
func Child() {
	kind := os.Getenv(childEnv)
	if kind == "" {
		return
	}
	// What a child starts in turn is not a child.
	_ = os.Unsetenv(childEnv)
	var err error
	switch kind {
	case "server":
		err = childMain(serve)
	case "client":
		err = childMain(drive)
	case "burn":
		burn()
	case "flood":
		err = childMain(flood)
	case "notice":
		err = childMain(watchProcess)
	case "check":
		err = childMain(checkHTTP)
	default:
		err = fmt.Errorf("unknown part %q", kind)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", kind+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func childMain[T any](f func(T) error) error {
	var args T
	if err := json.Unmarshal([]byte(os.Getenv(childArg)), &args); err != nil {
		return fmt.Errorf("read %s: %w", childArg, err)
	}
	return f(args)
}

// childCommand is the command and the environment that start this program as
// the given part of a lab.
func childCommand(kind string, args any) (cmd, env []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("find own program: %w", err)
	}
	b, err := json.Marshal(args)
	if err != nil {
		return nil, nil, fmt.Errorf("write arguments of %s: %w", kind, err)
	}
	return []string{self}, []string{childEnv + "=" + kind, childArg + "=" + string(b)}, nil
}

// burn keeps one core busy until it is killed.
func burn() {
	for n := uint64(1); ; n = n*6364136223846793005 + 1 {
		if n == 0 {
			return
		}
	}
}
