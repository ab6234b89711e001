package status

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// style is how a cell looks on a terminal with colour.
type style string

// The styles, as ANSI codes.
const (
	plain style = ""
	bold  style = "1"
	dim   style = "2"
	good  style = "32"
	warn  style = "33"
	bad   style = "1;31"
)

// cell is a piece of text in one style.
type cell struct {
	text  string
	style style
}

func c(text string, st ...style) cell {
	made := cell{text: clean(text)}
	if len(st) > 0 {
		made.style = st[0]
	}
	return made
}

// clean takes out what could move the cursor or start a line of its own: the
// texts of other nodes, of hooks and of HAProxy end up on a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Cf, r):
			return '·'
		default:
			return r
		}
	}, s)
}

func size(s string) int { return utf8.RuneCountInString(s) }

// cut shortens a text to so many characters and marks it.
func cut(s string, width int) string {
	if size(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}

// page collects lines of limited width.
type page struct {
	b     strings.Builder
	width int
	color bool
	old   bool // all of it is: nothing is painted as if it were so
}

func (p *page) paint(cl cell) string {
	if p.old && cl.style != bad && cl.style != bold {
		cl.style = dim
	}
	if !p.color || cl.style == plain || cl.text == "" {
		return cl.text
	}
	return "\x1b[" + string(cl.style) + "m" + cl.text + "\x1b[0m"
}

// line writes cells one after the other.
func (p *page) line(cells ...cell) {
	left := p.width
	for _, cl := range cells {
		cl.text = cut(cl.text, left)
		left -= size(cl.text)
		p.b.WriteString(p.paint(cl))
	}
	p.b.WriteByte('\n')
}

// split writes one text at the left edge and one at the right.
func (p *page) split(left, right cell) {
	left.text = cut(left.text, max(0, p.width-size(right.text)-1))
	gap := strings.Repeat(" ", max(1, p.width-size(left.text)-size(right.text)))
	p.b.WriteString(p.paint(left) + gap + p.paint(right) + "\n")
}

// Wrap breaks a sentence into lines that a screen of that width has room for; 0
// is 80.
func Wrap(words string, width int) string {
	p := Screen{Width: width}.page()
	p.text(c(""), words)
	return p.b.String()
}

// text writes words over as many lines as they need, behind a first cell, with
// the further lines indented as far.
func (p *page) text(first cell, words string) {
	indent := size(first.text)
	p.b.WriteString(p.paint(first))
	column := indent
	for i, word := range strings.Fields(clean(words)) {
		if i > 0 {
			if column+1+size(word) > p.width {
				p.b.WriteString("\n" + strings.Repeat(" ", indent))
				column = indent
			} else {
				p.b.WriteByte(' ')
				column++
			}
		}
		word = cut(word, p.width-indent)
		p.b.WriteString(word)
		column += size(word)
	}
	p.b.WriteByte('\n')
}

// table writes rows with aligned columns, two spaces apart. What is too wide
// is taken from the widest column. The first row is the heading.
func (p *page) table(rows ...[]cell) { p.firmTable(0, rows) }

// firmTable is a table whose first columns are cut only when the others are as
// narrow as can be.
func (p *page) firmTable(firm int, rows [][]cell) {
	widths := columnWidths(rows)
	for total(widths) > p.width {
		i := widest(widths[firm:], leastWidth)
		if i >= 0 {
			i += firm
		} else if i = widest(widths, 3); i < 0 {
			break
		}
		widths[i]--
	}
	for n, row := range rows {
		var line strings.Builder
		for i, cl := range row {
			cl.text = cut(cl.text, widths[i])
			pad := strings.Repeat(" ", widths[i]-size(cl.text)+2)
			if n == 0 {
				cl.style = dim
				if i == 0 {
					cl.style = bold
				}
			}
			line.WriteString(p.paint(cl) + pad)
		}
		p.b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// leastWidth is what a column that is not firm is left with.
const leastWidth = 8

// widest is the widest column of those that are wider than that, or -1.
func widest(widths []int, than int) int {
	found := -1
	for i, w := range widths {
		if w > than && (found < 0 || w > widths[found]) {
			found = i
		}
	}
	return found
}

func columnWidths(rows [][]cell) []int {
	var widths []int
	for _, row := range rows {
		for i, cl := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], size(cl.text))
		}
	}
	return widths
}

func total(widths []int) int {
	sum := 2 * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	return sum
}
