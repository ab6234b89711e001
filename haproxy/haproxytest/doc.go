// Package haproxytest has what tests need of HAProxy: the real one, started in a
// directory of its own (Process), and a fake that speaks the socket's protocol,
// keeps state, prints its log as an operator would type it and can be made to
// misbehave (Fake).
package haproxytest
