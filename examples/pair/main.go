// Command pair is the laboratory of tandem: a pair of load balancers with a
// witness, two sites and a client on one machine.
//
//	pair demo    plays a story of failures on it and says what the client noticed
//	pair lab     leaves it up to be played with
//	pair do      breaks or mends something in a lab that is up
//	pair moves   moves the address to and fro under a mixed load
//	pair followers  measures many load balancers without a vote, shoots some and cuts others off
//	pair bench   measures every kind of failure, with keepalived beside it
//	pair tune    compares the lease that tunes itself with fixed ones
//
// It needs Linux with network namespaces; without root it makes a user
// namespace for itself where the kernel allows it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

func main() {
	lab.Child()
	os.Exit(run())
}

func run() int {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	root := &cobra.Command{
		Use: "pair", Short: "The laboratory of tandem: a pair of load balancers that fail over, on one machine",
		SilenceUsage: true, SilenceErrors: true,
	}
	var program string
	root.PersistentFlags().StringVar(&program, "tandem", beside("tandem"), "the tandem binary")
	root.AddCommand(demoCommand(&program), labCommand(&program), doCommand(), benchCommand(&program),
		movesCommand(&program), followersCommand(&program), soakCommand(&program), tuneCommand(&program), ableCommand())
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNotDone):
		return 1
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\ninterrupted; the lab is cleaned up")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "pair:", err)
		return 1
	}
}
