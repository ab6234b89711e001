// Command hybrid-chat plays the two-site deployment that tandem was made for:
// haproxy.cfg, the environment files and HAScripts of this directory, as they
// would be installed, with stand-ins for the applications.
//
//	hybrid-chat scenarios [--tandem bin/tandem] [--only sites,cuts]   the table, played and printed
//	hybrid-chat start|stop|serve NAME                            a stand-in service
//	hybrid-chat register URL BODY                                what curl does where there is curl
package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tandem/examples/lab"
)

func main() {
	lab.Child()
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "hybrid-chat:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{Use: "hybrid-chat", Short: "Two sites, one active", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(scenariosCommand())
	for verb, f := range map[string]func(service) error{"start": service.start, "stop": service.stop, "serve": service.serve} {
		root.AddCommand(&cobra.Command{
			Use: verb + " NAME", Short: verb + " a stand-in service", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				s, err := newService(os.Getenv("HYBRIDCHAT_DIR"), os.Getenv("HYBRIDCHAT_SITE"), args[0])
				if err != nil {
					return err
				}
				return f(s)
			},
		})
	}
	root.AddCommand(&cobra.Command{
		Use: "register URL BODY", Short: "PUT a web-hook's address to the messaging platform", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return register(cmd.Context(), args[0], args[1]) },
	})
	return root
}

func register(ctx context.Context, url, body string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("register web-hook: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("register web-hook: %s", res.Status)
	}
	return nil
}
