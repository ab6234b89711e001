package haproxytest

import (
	"fmt"
	"slices"
	"strings"
)

// What the fake shows: the answers to show info, show servers state and show stat.

func (f *Fake) info() string {
	stopping := 0
	if f.stopping {
		stopping = 1
	}
	return fmt.Sprintf("Name: HAProxy\nVersion: 2.6.12-fake\nNbthread: 1\nPid: %d\nUptime_sec: 1\nStopping: %d\nStart_time_sec: %d\n", f.pid, stopping, f.start)
}

func (f *Fake) state() string {
	var b strings.Builder
	b.WriteString("1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight " +
		"srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state " +
		"bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n")
	for i, s := range f.servers {
		agent := 0
		if s.Agent {
			agent = 22
		}
		oper := s.Oper
		if s.Admin&0x23 != 0 {
			oper = 0
		}
		fmt.Fprintf(&b, "2 %s %d %s 127.0.0.1 %d %d %d %d 1 1 0 2 0 %d 0 0 - 9 - 0 0 - - 0\n",
			s.Backend, i+1, s.Server, oper, s.Admin, s.Weight, s.InitialWeight, agent)
	}
	return b.String()
}

func (f *Fake) summary() string {
	var b strings.Builder
	b.WriteString("# pxname,svname,scur,status,weight,act,bck\n")
	var done []string
	for _, s := range f.servers {
		if slices.Contains(done, s.Backend) {
			continue
		}
		done = append(done, s.Backend)
		active, weight := 0, 0
		for _, o := range f.servers {
			if o.Backend == s.Backend && o.usable() {
				active++
				weight += o.Weight
			}
		}
		status := "UP"
		if active == 0 {
			status = "DOWN"
		}
		fmt.Fprintf(&b, "%s,BACKEND,0,%s,%d,%d,0\n", s.Backend, status, weight, active)
	}
	return b.String()
}

// usable says whether the server gets new requests.
func (s *FakeServer) usable() bool { return s.Oper == 2 && s.Admin&^0x44 == 0 && s.Weight > 0 }

// status is the word of `show stat` for a server without checks.
func (s *FakeServer) status() string {
	switch {
	case s.Admin&0x23 != 0:
		return "MAINT"
	case s.Oper == 0:
		return "DOWN"
	case s.Admin&0x18 != 0:
		return "DRAIN"
	}
	return "no check"
}

func (f *Fake) stat(backend string) string {
	var b strings.Builder
	b.WriteString("# pxname,svname,scur,status,weight,act,bck\n")
	for _, s := range f.servers {
		if s.Backend == backend {
			fmt.Fprintf(&b, "%s,%s,0,%s,%d,1,0\n", s.Backend, s.Server, s.status(), s.Weight)
		}
	}
	return b.String()
}
