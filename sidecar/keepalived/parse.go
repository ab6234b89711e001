// Package keepalived reads a keepalived.conf and says what of it tandem does,
// under which settings, and what has no counterpart.
package keepalived

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// node is one statement: words, and a block if it has one.
type node struct {
	words []string
	block []*node
	line  int
}

func (n *node) name() string { return n.words[0] }

// arg is the first argument, or nothing.
func (n *node) arg() string {
	if len(n.words) > 1 {
		return n.words[1]
	}
	return ""
}

// find gives the statements of that name in the block.
func (n *node) find(name string) []*node {
	var found []*node
	for _, child := range n.block {
		if child.name() == name {
			found = append(found, child)
		}
	}
	return found
}

// first gives the first statement of that name, or nil.
func (n *node) first(name string) *node {
	if all := n.find(name); len(all) > 0 {
		return all[0]
	}
	return nil
}

// maxSize is far above any configuration written by a person.
const maxSize = 4 << 20

// parse reads the whole file into a tree. A statement is a line; a block opens
// with { at the end of a line or on a line of its own.
func parse(r io.Reader) (*node, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxSize {
		return nil, fmt.Errorf("larger than %d bytes", maxSize)
	}
	root := &node{words: []string{"file"}}
	open := []*node{root}
	defined := definitions{}
	number := 0
	for text := range strings.Lines(string(raw)) {
		number++
		if defined.take(text) {
			continue
		}
		words, err := split(defined.expand(text))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if open, err = place(open, words, number); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if len(open) > 1 {
		last := open[len(open)-1]
		return nil, fmt.Errorf("line %d: the block %s is not closed", last.line, last.name())
	}
	return root, nil
}

// definitions are the values that $NAME stands for.
type definitions map[string]string

var (
	definition = regexp.MustCompile(`^\s*\$([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$`)
	reference  = regexp.MustCompile(`\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\})`)
)

// take reads a line that defines a value, and says whether it was one.
func (d definitions) take(line string) bool {
	found := definition.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
	if found == nil || len(d) >= maxDefined {
		return false
	}
	value, _, _ := strings.Cut(found[2], "#")
	d[found[1]] = d.expand(strings.TrimSpace(value))
	return true
}

// expand puts the values where their names stand; a name that is not defined
// stays as it is.
func (d definitions) expand(line string) string {
	return reference.ReplaceAllStringFunc(line, func(name string) string {
		value, ok := d[strings.Trim(name, "${}")]
		if !ok || len(value) > maxValue {
			return name
		}
		return value
	})
}

// maxDefined and maxValue are far above what people define, and keep a file whose
// values stand for one another from growing without bound.
const (
	maxDefined = 1000
	maxValue   = 1000
)

// maxDepth is far above what keepalived nests.
const maxDepth = 32

// place puts the words of a line where they belong, and opens and closes
// blocks.
func place(open []*node, words []string, line int) ([]*node, error) {
	var current *node
	for _, word := range words {
		top := open[len(open)-1]
		switch word {
		case "{":
			if current == nil {
				if len(top.block) == 0 {
					return nil, errors.New("a block without a name")
				}
				current = top.block[len(top.block)-1] // the name stood on a line before
			}
			if open = append(open, current); len(open) > maxDepth {
				return nil, errors.New("blocks are nested too deep")
			}
			current = nil
		case "}":
			if len(open) == 1 {
				return nil, errors.New("a } that closes nothing")
			}
			open, current = open[:len(open)-1], nil
		default:
			if current == nil {
				current = &node{line: line}
				top.block = append(top.block, current)
			}
			current.words = append(current.words, word)
		}
	}
	return open, nil
}

// split takes a line apart into words, quoted strings and braces. Comments
// begin with a number sign or an exclamation mark.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote := false, rune(0)
	end := func() {
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in = false
	}
	for _, r := range strings.TrimRight(line, "\r\n") {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, in = r, true
		case (r == '#' || r == '!') && !in:
			return words, nil
		case r == ' ' || r == '\t':
			end()
		case r == '{' || r == '}':
			end()
			words = append(words, string(r))
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quotation mark is not closed")
	}
	end()
	return words, nil
}
