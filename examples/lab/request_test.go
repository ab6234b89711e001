package lab

import (
	"testing"
	"time"
)

const ms = time.Millisecond

func stream5(from, to time.Duration, lb, server string) []Request {
	var rs []Request
	for t := from; t < to; t += 5 * ms {
		rs = append(rs, Request{Kind: KindNew, Start: t, Took: ms, Status: 200, LB: lb, Server: server})
	}
	return rs
}

func TestNoOutageWhenEveryRequestIsAnswered(t *testing.T) {
	n := notice(stream5(0, 1000*ms, "lb1", "a-1"), 100*ms, 1000*ms, 5*ms)
	if n.Requests != 180 || n.Failed != 0 || n.Outage > 2*ms || n.Open {
		t.Errorf("got %+v", n)
	}
	if n.LBs["lb1"] != 180 || n.Sites()["a"] != 180 {
		t.Errorf("answers are not attributed: %v %v", n.LBs, n.Sites())
	}
}

func TestOutageIsTheLongestTimeWithoutAnAnswer(t *testing.T) {
	rs := stream5(0, 300*ms, "lb1", "a-1")
	for at := 300 * ms; at < 500*ms; at += 5 * ms {
		rs = append(rs, Request{Kind: KindNew, Start: at, Took: 1000 * ms, Err: "timeout"})
	}
	rs = append(rs, stream5(500*ms, 1000*ms, "lb2", "a-1")...)
	n := notice(rs, 0, 1000*ms, 5*ms)
	if n.Outage < 195*ms || n.Outage > 205*ms || n.Open {
		t.Errorf("outage %v open %v, want 200ms that ended", n.Outage, n.Open)
	}
	if n.Failed != 40 || n.Errors["timeout"] != 40 {
		t.Errorf("failed %d %v, want 40 timeouts", n.Failed, n.Errors)
	}
}

func TestOutageThatHasNotEndedIsOpen(t *testing.T) {
	n := notice(stream5(0, 300*ms, "lb1", "a-1"), 0, 1000*ms, 5*ms)
	if n.Outage < 690*ms || !n.Open {
		t.Errorf("outage %v open %v, want 700ms that did not end", n.Outage, n.Open)
	}
}

func TestSlowAnswerIsNoOutageAsLongAsOthersAreAnswered(t *testing.T) {
	rs := append(stream5(0, 1000*ms, "lb1", "a-1"), Request{Kind: KindNew, Start: 100 * ms, Took: 700 * ms, Status: 200})
	n := notice(rs, 0, 1000*ms, 5*ms)
	if n.Outage > 2*ms || n.Slowest != 700*ms {
		t.Errorf("outage %v slowest %v", n.Outage, n.Slowest)
	}
}

func TestBrokenKeptConnectionIsNotAFailedNewOne(t *testing.T) {
	rs := append(stream5(0, 1000*ms, "lb1", "a-1"),
		Request{Kind: KindKeep, Start: 100 * ms, Took: ms, Status: 200},
		Request{Kind: KindKeep, Start: 200 * ms, Took: ms, Err: "reset"})
	n := notice(rs, 0, 1000*ms, 5*ms)
	if n.Failed != 0 || n.Kept != 2 || n.Broken != 1 {
		t.Errorf("failed %d kept %d broken %d, want 0, 2, 1", n.Failed, n.Kept, n.Broken)
	}
}
