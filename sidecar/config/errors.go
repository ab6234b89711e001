package config

import (
	"fmt"
	"strings"
)

// Error is one thing that is wrong with the configuration.
type Error struct {
	Variable string
	Value    string // as it may be shown; empty: not set
	Problem  string
	Example  string // an acceptable value, or what to do
}

// Error names the variable, the value and an acceptable example in one line.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Variable)
	if e.Value != "" {
		fmt.Fprintf(&b, "=%q", e.Value)
	}
	b.WriteString(": " + e.Problem)
	if e.Example == "" {
		return b.String()
	}
	if strings.HasPrefix(e.Example, "the output of ") {
		b.WriteString("; for example " + e.Example)
	} else {
		fmt.Fprintf(&b, "; for example %s=%s", e.Variable, shellQuote(e.Example))
	}
	return b.String()
}

// shellQuote quotes what a shell would take apart, so that an example can be
// pasted.
func shellQuote(s string) string {
	if strings.ContainsAny(s, ";*?[] $&|<>()'\"`\\#") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// Errors are all that is wrong, in the order of the table.
type Errors []Error

// Error is a line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Of says whether anything is wrong with that variable.
func (e Errors) Of(variable string) bool {
	for _, one := range e {
		if one.Variable == variable {
			return true
		}
	}
	return false
}
