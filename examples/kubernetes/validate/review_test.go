package validate

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// workload is what makes pods.
type workload struct {
	name     string
	pod      corev1.PodTemplateSpec
	selector *metav1.LabelSelector
}

func workloads(t *testing.T) []workload {
	t.Helper()
	var all []workload
	for _, object := range manifests(t) {
		switch o := object.(type) {
		case *appsv1.DaemonSet:
			all = append(all, workload{o.Name, o.Spec.Template, o.Spec.Selector})
		case *appsv1.Deployment:
			all = append(all, workload{o.Name, o.Spec.Template, o.Spec.Selector})
		}
	}
	if len(all) != 2 {
		t.Fatalf("%d workloads, want load balancers and witness", len(all))
	}
	return all
}

func chooses(t *testing.T, selector *metav1.LabelSelector, pod corev1.PodTemplateSpec) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(pod.Labels))
}

func TestSelectorsAndVolumesBelongTogether(t *testing.T) {
	for _, w := range workloads(t) {
		if !chooses(t, w.selector, w.pod) {
			t.Errorf("%s: the selector does not choose its own pods", w.name)
		}
		volumes := map[string]bool{}
		for _, v := range w.pod.Spec.Volumes {
			volumes[v.Name] = true
		}
		for _, c := range w.pod.Spec.Containers {
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s: %s mounts %s, which is no volume", w.name, c.Name, m.Name)
				}
			}
		}
	}
}

// TestNobodyHasMoreRightsThanTheWorkNeeds: no root, nothing to write, no
// capability but the two, and those for the sidecar of a load balancer alone.
func TestNobodyHasMoreRightsThanTheWorkNeeds(t *testing.T) {
	for _, w := range workloads(t) {
		p := w.pod.Spec
		if p.SecurityContext == nil || p.SecurityContext.SeccompProfile == nil || p.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
			p.SecurityContext.RunAsNonRoot == nil || !*p.SecurityContext.RunAsNonRoot || p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
			t.Errorf("%s: security of the pod: %+v", w.name, p.SecurityContext)
		}
		for _, c := range p.Containers {
			may := w.name == "tandem-lb" && c.Name == "tandem"
			s := c.SecurityContext
			if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.Privileged != nil ||
				s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation != may || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
				t.Errorf("%s: security of %s: %+v", w.name, c.Name, s)
				continue
			}
			var want []corev1.Capability
			if may {
				want = []corev1.Capability{"NET_ADMIN", "NET_RAW"}
			}
			if !slices.Equal(s.Capabilities.Add, want) {
				t.Errorf("%s: %s has %v, want %v", w.name, c.Name, s.Capabilities.Add, want)
			}
		}
	}
}

// TestARolloutTakesOneVoterAtATime: a voter is silent after its start, and is
// ready when it votes again; its HAProxy must answer too.
func TestARolloutTakesOneVoterAtATime(t *testing.T) {
	for _, object := range manifests(t) {
		switch o := object.(type) {
		case *appsv1.DaemonSet:
			u := o.Spec.UpdateStrategy.RollingUpdate
			if u == nil || u.MaxUnavailable.String() != "1" || u.MaxSurge.String() != "0" {
				t.Errorf("load balancers: %+v", u)
			}
		case *appsv1.Deployment:
			if *o.Spec.Replicas != 1 || o.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
				t.Errorf("witness: %+v", o.Spec.Strategy)
			}
		}
	}
	for _, w := range workloads(t) {
		for _, c := range w.pod.Spec.Containers {
			if c.LivenessProbe == nil || c.ReadinessProbe == nil {
				t.Errorf("%s: %s lacks a probe", w.name, c.Name)
				continue
			}
			if c.Name == "tandem" && !slices.Contains(c.ReadinessProbe.Exec.Command, "--ready") {
				t.Errorf("%s: readiness asks %v", w.name, c.ReadinessProbe.Exec.Command)
			}
			if c.Name == "haproxy" && (c.Lifecycle == nil || c.Lifecycle.PreStop == nil) {
				t.Errorf("%s: HAProxy closes its port before the address has been handed over", w.name)
			}
		}
		const grace = 30 // TANDEM_MOVE_GRACE
		if w.name == "tandem-lb" && *w.pod.Spec.TerminationGracePeriodSeconds <= grace {
			t.Errorf("a load balancer has %d s to end", *w.pod.Spec.TerminationGracePeriodSeconds)
		}
	}
}

// TestABudgetKeepsAMajority: one budget over all voters, whose number must be an
// integer: the scale of a DaemonSet is nothing that a budget can ask for.
func TestABudgetKeepsAMajority(t *testing.T) {
	budgets := 0
	for _, object := range manifests(t) {
		b, ok := object.(*policyv1.PodDisruptionBudget)
		if !ok {
			continue
		}
		budgets++
		voters := len(peers(t))
		if b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable == nil || b.Spec.MinAvailable.Type != intstr.Int || b.Spec.MinAvailable.IntValue() != voters/2+1 {
			t.Errorf("%s: %+v, want a majority of %d voters to be left", b.Name, b.Spec, voters)
		}
		for _, w := range workloads(t) {
			if !chooses(t, b.Spec.Selector, w.pod) {
				t.Errorf("%s does not cover %s", b.Name, w.name)
			}
		}
	}
	if budgets != 1 {
		t.Errorf("%d budgets; an eviction is refused where a pod has two", budgets)
	}
}

// peers are the addresses of the voters, by name.
func peers(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, object := range manifests(t) {
		if m, ok := object.(*corev1.ConfigMap); ok && m.Data["TANDEM_PEERS"] != "" {
			for peer := range strings.SplitSeq(m.Data["TANDEM_PEERS"], ",") {
				name, address, _ := strings.Cut(peer, "=")
				all[name] = address
			}
		}
	}
	if len(all) != 3 {
		t.Fatalf("peers: %v", all)
	}
	return all
}

// TestPoliciesLetGossipThrough: UDP and TCP from every voter but oneself; and the
// ports are those that the pods take on the node.
func TestPoliciesLetGossipThrough(t *testing.T) {
	all := peers(t)
	covered := 0
	for _, object := range manifests(t) {
		p, ok := object.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		for _, w := range workloads(t) {
			if !chooses(t, &p.Spec.PodSelector, w.pod) {
				continue
			}
			covered++
			for _, rule := range p.Spec.Ingress {
				if port := rule.Ports[0].Port.IntValue(); port != 7946 {
					continue
				}
				gossip(t, p.Name, rule.Ports, rule.From)
				for name, address := range all {
					if name != "witness" || w.name != "tandem-witness" {
						allows(t, p.Name, rule.From, address)
					}
				}
			}
			for _, rule := range p.Spec.Egress {
				gossip(t, p.Name, rule.Ports, rule.To)
				allows(t, p.Name, rule.To, all["node-1"])
				allows(t, p.Name, rule.To, all["node-2"])
			}
		}
	}
	if covered != 2 {
		t.Errorf("policies cover %d workloads", covered)
	}
	for _, w := range workloads(t) {
		i := slices.IndexFunc(w.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "tandem" })
		taken := map[corev1.Protocol]int32{}
		for _, p := range w.pod.Spec.Containers[i].Ports {
			taken[p.Protocol] = p.HostPort
		}
		if taken[corev1.ProtocolUDP] != 7946 || taken[corev1.ProtocolTCP] != 7946 {
			t.Errorf("%s takes %v on the node", w.name, taken)
		}
	}
}

func gossip(t *testing.T, policy string, ports []networkingv1.NetworkPolicyPort, with []networkingv1.NetworkPolicyPeer) {
	t.Helper()
	seen := map[corev1.Protocol]bool{}
	for _, p := range ports {
		if p.Port.IntValue() == 7946 {
			seen[*p.Protocol] = true
		}
	}
	if !seen[corev1.ProtocolUDP] || !seen[corev1.ProtocolTCP] || len(with) == 0 {
		t.Errorf("%s: gossip by %v with %d peers", policy, seen, len(with))
	}
}

func allows(t *testing.T, policy string, with []networkingv1.NetworkPolicyPeer, address string) {
	t.Helper()
	if !slices.ContainsFunc(with, func(p networkingv1.NetworkPolicyPeer) bool {
		return p.IPBlock != nil && p.IPBlock.CIDR == address+"/32"
	}) {
		t.Errorf("%s: %s is left out", policy, address)
	}
}
