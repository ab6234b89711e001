package apitest

import (
	"time"

	"tandem/sidecar/status"
)

// Scene is a situation that an operator may be woken for, as one node sees it.
type Scene struct {
	Name   string
	Status status.Status
}

// Scenes are the situations in which status and page are looked at. The
// sentences are those that a real node says.
func Scenes(at time.Time) []Scene {
	of := func(name string, change func(*status.Status)) Scene {
		st := Pair(at)
		change(&st)
		return Scene{name, st}
	}
	return []Scene{
		of("healthy", func(*status.Status) {}),
		of("degraded", degraded),
		of("failing-over", failingOver),
		of("switching", switching),
		of("no-majority", noMajority),
		of("pair-alone", pairAlone),
		of("held-by-hand", heldByHand),
		of("stranger", stranger),
		of("starting", starting),
	}
}

func silent(n *status.Node, reason, detail string, age int64) {
	n.Alive, n.Eligible, n.HAProxy, n.VIPs = false, false, nil, []string{}
	n.Reason, n.Detail, n.AgeMS = reason, detail, age
}

func degraded(st *status.Status) {
	st.Health = status.Degraded
	st.Problems = []string{"witness is silent (unreachable: nothing comes back from its address: check that its machine runs, that its process does not stand still, and that UDP and TCP pass the firewall)"}
	silent(&st.Nodes[2], "unreachable", "failed to join 10.0.0.13:7946: dial tcp 10.0.0.13:7946: i/o timeout", 4200)
	st.NextFail = []string{"if lb1 fails, nobody takes site and vip/default over", "if lb2 fails, nobody takes site and vip/default over", "if site a fails, site b takes over"}
}

// failingOver: lb1 has lost power and its lease is not over yet.
func failingOver(st *status.Status) {
	st.Node, st.Health = "lb2", status.NotServing
	st.Problems = []string{"nobody holds vip/default", "nobody holds site: no site decision can be made", "lb1 is silent (not-heard)"}
	silent(&st.Nodes[0], "not-heard", "", 640)
	st.Nodes[1].AgeMS = 0
	for i := range st.Leases {
		st.Leases[i].Holder, st.Leases[i].ExpiresInMS, st.Leases[i].LengthMS, st.Leases[i].Source, st.Leases[i].Fence = "", 0, 0, "", ""
	}
	st.Views[0].Stale, st.Views[0].AgeMS, st.Views[1].Stale, st.Views[1].AgeMS = true, 640, true, 640
	st.NextFail = nil
}

// switching: site a has failed, and the hooks of site b run.
func switching(st *status.Status) {
	st.Health = status.NotServing
	st.Problems = []string{"default is being switched from a to b: takeover", "no load balancer sees site a usable, which is active"}
	st.Site.Phase, st.Site.Target, st.Site.Reason, st.Site.Actor, st.Site.Waiting = "takeover", "b", "active-unusable", "", "waiting-for-hook"
	st.Groups[0] = st.Site
	for i := range st.Views {
		if st.Views[i].Site == "a" {
			st.Views[i].Usable, st.Views[i].Reason = false, "critical-down"
			st.Views[i].Backends = []status.Backend{{Name: "app", Total: 2}, {Name: "chat", Total: 1}}
		}
	}
	st.NextFail = nil
}

// noMajority: lb1 is cut off.
func noMajority(st *status.Status) {
	st.Health = status.Unknown
	st.Problems = []string{"only 1 of 3 voters are heard, 2 are needed: this node cannot tell what the others do", "lb2 is silent (not-heard)", "witness is silent (not-heard)"}
	st.NextFail = nil
	for i := range st.Leases {
		l := &st.Leases[i]
		l.Holder, l.ExpiresInMS, l.LengthMS, l.Source, l.Fence = "", 0, 0, status.LeaseUnknown, ""
	}
	for i := range st.Groups {
		st.Groups[i].Stale = true
	}
	st.Site.Stale, st.Nodes[0].VIPs = true, []string{}
	silent(&st.Nodes[1], "not-heard", "", 8400)
	silent(&st.Nodes[2], "not-heard", "", 8400)
	st.Views[2].Stale, st.Views[2].AgeMS, st.Views[3].Stale, st.Views[3].AgeMS = true, 9100, true, 9100
}

// pairAlone: of two voters one is silent, and this one goes on.
func pairAlone(st *status.Status) {
	st.Mode, st.Unsafe, st.Health = "pair", true, status.Degraded
	st.Problems = []string{
		"unsafe: lb1 decides site and vip/default alone (pair mode, the peer is silent); two holders are possible while only the link is cut",
		"lb2 is silent (not-heard)",
	}
	st.Nodes = st.Nodes[:2]
	silent(&st.Nodes[1], "not-heard", "", 61_000)
	st.Leases[0].Alone, st.Leases[1].Alone = true, true
	st.Views[2].Stale, st.Views[2].AgeMS, st.Views[3].Stale, st.Views[3].AgeMS = true, 61_300, true, 61_300
	st.NextFail = []string{"if lb1 fails, nobody takes site and vip/default over", "if site a fails, site b takes over"}
}

// heldByHand: a person works at servers of both sites.
func heldByHand(st *status.Status) {
	st.Held = []status.Held{
		{Node: "lb1", Server: "app/a-2", Kind: "maintenance", Detail: "set to maintenance at the socket"},
		{Node: "lb2", Server: "app/a-2", Kind: "maintenance", Detail: "set to maintenance at the socket"},
		{Node: "lb1", Server: "chat/b-1", Kind: "drain", Detail: "drained, and not by tandem"},
	}
	for i := range st.Views {
		if st.Views[i].Site == "a" {
			st.Views[i].Backends = []status.Backend{{Name: "app", Up: 1, Total: 2}, {Name: "chat", Up: 1, Total: 1}}
		}
	}
}

// stranger: another machine answers for the address, so nobody takes it up.
func stranger(st *status.Status) {
	const text = "02:00:00:00:00:09 answers for 10.0.0.100/32@eth0, which no node of the cluster holds: remove it there, or take it up all the same with `tandem move default --to NODE --force`"
	st.Health = status.NotServing
	st.Problems = []string{"nobody holds vip/default", "lb1, lb2: address-in-use: " + text}
	l := &st.Leases[1]
	l.Holder, l.ExpiresInMS, l.LengthMS, l.Source, l.Fence = "", 0, 0, "", ""
	st.Nodes[0].VIPs = []string{}
	st.Nodes[0].Warnings, st.Nodes[1].Warnings = []string{"address-in-use: " + text}, []string{"address-in-use: " + text}
	st.NextFail = []string{"if lb1 fails, nothing moves", "if site a fails, site b takes over"}
}

// starting: this node was started a moment ago.
func starting(st *status.Status) {
	st.Health, st.QuarantineMS = status.Unknown, 1900
	st.Problems = []string{"only 1 of 3 voters are heard, 2 are needed: this node cannot tell what the others do"}
	for i := range st.Leases {
		l := &st.Leases[i]
		l.Holder, l.ExpiresInMS, l.LengthMS, l.Epoch, l.Source, l.Fence = "", 0, 0, 0, status.LeaseUnknown, ""
	}
	st.Site, st.Groups = status.Site{}, []status.Site{}
	n := &st.Nodes[0]
	n.Eligible, n.Reason, n.Detail, n.VIPs, n.AppliedEpoch = false, "no-decision-yet", "", []string{}, 0
	for i := range st.Nodes[1:] {
		st.Nodes[i+1] = status.Node{Name: st.Nodes[i+1].Name, Voter: true, AgeMS: -1, Reason: "joining", VIPs: []string{}}
	}
	st.Views, st.NextFail, st.Recent = st.Views[:2], nil, nil
}
