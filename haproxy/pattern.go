package haproxy

import (
	"errors"
	"fmt"
	"strings"
)

// ErrPattern is what every error of ValidPattern wraps.
var ErrPattern = errors.New("invalid server pattern")

// ValidPattern says whether p can be used as the pattern of a rule: two globs
// with a slash between them, backend/server, in which an asterisk stands for
// any number of characters and a question mark for one. The others are those that HAProxy allows in
// names: letters, digits, underscore, dot, colon and hyphen.
func ValidPattern(p string) error {
	backend, server, ok := strings.Cut(p, "/")
	if !ok {
		return fmt.Errorf("%w: %q has no slash; example: */a-*", ErrPattern, p)
	}
	for _, part := range []string{backend, server} {
		if part == "" {
			return fmt.Errorf("%w: %q has an empty half; example: */a-*", ErrPattern, p)
		}
		if len(part) > maxName {
			return fmt.Errorf("%w: half of %d characters, %d at most", ErrPattern, len(part), maxName)
		}
		for i := range len(part) {
			if c := part[i]; !nameByte(c) && c != '*' && c != '?' {
				return fmt.Errorf("%w: %q contains %q; letters, digits, _ . : - * and ? are allowed", ErrPattern, p, c)
			}
		}
	}
	return nil
}

// Match says whether the pattern covers the server. An invalid pattern matches
// nothing that ValidPattern would let pass.
func Match(pattern string, id ServerID) bool {
	backend, server, ok := strings.Cut(pattern, "/")
	return ok && glob(backend, id.Backend) && glob(server, id.Server)
}

// glob matches without recursion: on a mismatch it goes back to the last star
// and lets it take one character more.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, resume := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			resume++
			p, i = star+1, resume
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
