package main

import (
	"strings"
	"testing"

	"tandem/examples/lab"
)

// TestApartMachinesAgree: the machines of the applications have the settings of
// the load balancers that concern both, and the hooks that those leave out.
func TestApartMachinesAgree(t *testing.T) {
	for _, pair := range [][2]string{{machineA, apartA}, {machineB, apartB}} {
		lb, app := read(pair[0]), read(pair[1])
		for name, value := range app {
			switch name {
			case "TANDEM_NODE", "TANDEM_ROLE", "HYBRIDCHAT_ADDRESS":
			default:
				if lb[name] != value {
					t.Errorf("%s is %q beside the load balancer and %q apart", name, lb[name], value)
				}
			}
		}
		for name := range lb {
			if strings.HasPrefix(name, "TANDEM_HOOK_") && app[name] == "" {
				t.Errorf("%s is missing apart", name)
			}
		}
	}
}

// TestApartTheLoadBalancersHaveNoHooks, which would run twice.
func TestApartTheLoadBalancersHaveNoHooks(t *testing.T) {
	o := options{apart: true, precheck: true, env: map[string]string{"TANDEM_HOOK_TIMEOUT": "9s"}}
	for _, node := range []string{"lb1", "lb2", "witness", "a", "b"} {
		env := environment(&lab.Node{Name: node, Dir: "/machine"}, o, "/scripts")
		has := env["TANDEM_HOOK_TAKEOVER"] != "" && env["TANDEM_HOOK_PRECHECK"] != "" && env["TANDEM_SITE"] != ""
		if app := machines[node] == node; has != app {
			t.Errorf("%s has hooks: %v, want %v", node, has, app)
		}
	}
}
