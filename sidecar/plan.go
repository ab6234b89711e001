package main

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"tandem/sidecar/status"
)

func (p *program) planCommand() *cobra.Command {
	var faults []string
	var asJSON bool
	c := &cobra.Command{
		Use: "plan --if FAULT[,FAULT...]", GroupID: "see", Args: cannotTell(cobra.NoArgs),
		Short: "Say what would happen if something failed, without touching anything",
		Long: `Say what would happen if all of these befell the cluster now. The sidecar of
this machine rehearses it: it plays the present cluster on in virtual time, with
the code that decides. Nothing is touched, and no other node is asked.

  NODE=down             it loses power, or its sidecar ends without a word
  NODE=cut              its network is cut
  NODE=maintenance      an operator puts it in maintenance
  NODE.haproxy=down     its HAProxy dies (or: hung)
  site.SITE=down        every server of the site fails (or: up)
  site.SITE.BACKEND=down   one backend there
  NODE.site.SITE=down   one load balancer loses sight of the site

Exit code as of status, for what would be then: 0 healthy, 1 degraded (served,
but no further failure is tolerated), 2 not serving, 3 cannot tell.`,
		Example: "  tandem plan --if lb1=down\n  tandem plan --if lb1=down,site.a=down --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(faults) == 0 {
				return exitError{exitCannotTell, "say what fails: --if, for example --if lb1=down,site.a=down"}
			}
			var plan status.Plan
			query := url.Values{"if": faults}
			if err := p.client().get(cmd.Context(), "/v1/plan?"+query.Encode(), &plan); err != nil {
				return exitError{exitCannotTell, err.Error()}
			}
			if asJSON {
				if err := printJSON(p.stdout, plan); err != nil {
					return err
				}
				return quietly(healthCode(plan.Health))
			}
			sc := p.screen()
			sc.Now = time.Now()
			if err := status.RenderPlan(p.stdout, plan, sc); err != nil {
				return err
			}
			return quietly(healthCode(plan.Health))
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{exitCannotTell, err.Error()} })
	c.Flags().StringSliceVar(&faults, "if", nil, "what fails, comma-separated; may be repeated")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, the schema of /v1/plan")
	_ = c.RegisterFlagCompletionFunc("if", p.complete(faultsOf))
	return c
}

// faultsOf are the single faults that can be asked for.
func faultsOf(st status.Status) []string {
	var all []string
	for _, n := range st.Nodes {
		all = append(all, n.Name+"=down", n.Name+"=cut")
		if n.HAProxy != nil {
			all = append(all, n.Name+".haproxy=down")
		}
	}
	for _, s := range st.Sites {
		all = append(all, "site."+s+"=down")
	}
	return all
}
