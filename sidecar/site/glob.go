package site

import (
	"fmt"
	"strings"
)

// glob matches s against a pattern of literals, `*` (any run, also empty) and
// `?` (any one byte), without backtracking beyond the last star.
func glob(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark, p = p, i, p+1
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matches says whether a `backend/server` pattern matches a server.
func matches(pattern, backend, server string) bool {
	b, s, ok := strings.Cut(pattern, "/")
	return ok && glob(b, backend) && glob(s, server)
}

// validName says whether s may name a backend, server or site: what HAProxy
// itself allows, and nothing that its Runtime API would read as syntax.
func validName(s string, wild bool) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '_', c == '.', c == ':', c == '-':
		case wild && (c == '*' || c == '?'):
		default:
			return false
		}
	}
	return true
}

func validPattern(p string) error {
	b, s, ok := strings.Cut(p, "/")
	if !ok || !validName(b, true) || !validName(s, true) {
		return fmt.Errorf("read pattern %q: want backend/server with * and ?, for example */a-*", p)
	}
	return nil
}
