package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

const prefix = "TANDEM_"

// DefaultSocket is the control socket when TANDEM_SOCKET is not set.
const DefaultSocket = "/run/tandem/tandem.sock"

// Load reads the configuration from an environment as [os.Environ] gives it.
// Its error is an [Errors].
func Load(environ []string) (Config, error) {
	l := loader{table: Table(), values: map[string]string{}, origin: map[string]string{}, files: map[string]bool{}}
	l.read(environ)
	cfg := l.parse()
	l.validate(&cfg)
	if len(l.errs) > 0 {
		l.sort()
		return Config{}, l.errs
	}
	cfg.Warnings = l.warnings
	if _, file := l.files["TANDEM_KEY"]; file {
		cfg.KeyFile = l.origin["TANDEM_KEY"]
	}
	cfg.settings = l.settings(cfg)
	return cfg, nil
}

// SocketPath is the control socket that an environment names. The command line
// needs nothing else of the configuration.
func SocketPath(environ []string) string {
	for _, pair := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(pair, "TANDEM_SOCKET="); ok && value != "" {
			return value
		}
	}
	return DefaultSocket
}

// loader collects values and errors on the way to a Config.
type loader struct {
	table  []Variable
	values map[string]string // by variable, defaults not included
	origin map[string]string // by variable: environment, or the path of a file
	files  map[string]bool   // variables that were read from a file
	errs   Errors

	warnings []string
}

func (l *loader) add(variable, problem string, args ...any) {
	v, _ := l.find(variable)
	value := l.values[variable]
	if v.Secret && value != "" {
		value = hidden
	}
	if variable == "TANDEM_WEBHOOK" {
		value = URL(value).short()
	}
	l.errs = append(l.errs, Error{Variable: variable, Value: value, Problem: fmt.Sprintf(problem, args...), Example: v.Example})
}

func (l *loader) find(variable string) (Variable, bool) {
	i := slices.IndexFunc(l.table, func(v Variable) bool { return v.Name == variable })
	if i < 0 {
		return Variable{}, false
	}
	return l.table[i], true
}

// read takes what begins with our prefix, reads the files of secrets, and
// refuses what nobody knows. Of a name given twice the last counts, as in a
// shell.
func (l *loader) read(environ []string) {
	given := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, prefix) {
			given[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if given[name] == "" && l.known(name) {
			continue
		}
		if _, ok := l.find(name); ok {
			l.values[name], l.origin[name] = given[name], "environment"
			continue
		}
		if !l.known(name) && !serviceLink(name, given[name]) {
			l.unknown(name)
		}
	}
	for _, v := range l.table {
		if path := given[v.Name+FileSuffix]; v.Secret && path != "" {
			l.readFile(v.Name, path)
		}
	}
}

// known says whether a name is a variable, or the file of a secret.
func (l *loader) known(name string) bool {
	if _, ok := l.find(name); ok {
		return true
	}
	v, ok := l.find(strings.TrimSuffix(name, FileSuffix))
	return ok && v.Secret
}

// servicePort matches variables that Kubernetes gives to containers for a
// Service called tandem or tandem-something, and nobody writes by hand.
var servicePort = regexp.MustCompile(`^TANDEM_([A-Z0-9_]+_)?(SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// serviceLink says whether a variable is such a one, by its name and by a
// value that nobody would write there.
func serviceLink(name, value string) bool {
	switch {
	case servicePort.MatchString(name):
		return true
	case strings.HasSuffix(name, "_SERVICE_HOST"):
		_, err := netip.ParseAddr(value)
		return err == nil
	default:
		return strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
	}
}

func (l *loader) unknown(name string) {
	e := Error{Variable: name, Problem: "no such variable"}
	var names []string
	for _, v := range l.table {
		names = append(names, v.Name)
		if v.Secret {
			names = append(names, v.Name+FileSuffix)
		}
	}
	if near := nearest(name, names); near != "" {
		e.Problem += "; did you mean " + near + "?"
	} else {
		e.Problem += "; `tandem config --table` lists them"
	}
	l.errs = append(l.errs, e)
}

func (l *loader) readFile(variable, path string) {
	name := variable + FileSuffix
	shown := path
	if _, err := os.Stat(path); err != nil && (!filepath.IsAbs(path) || (&Keys{}).UnmarshalText([]byte(path)) == nil) {
		shown = hidden // perhaps the secret itself
	}
	fail := func(problem string) {
		l.errs = append(l.errs, Error{Variable: name, Value: shown, Problem: problem, Example: "/run/secrets/" + strings.ToLower(variable)})
	}
	if l.values[variable] != "" {
		fail(variable + " is set too; give one of both")
		return
	}
	raw, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		if at, ok := errors.AsType[*os.PathError](err); ok {
			err = at.Err
		}
		fail("cannot read the file: " + err.Error())
		return
	}
	value := strings.TrimSpace(string(raw))
	if value == "" {
		fail("the file is empty")
		return
	}
	l.values[variable], l.origin[variable], l.files[variable] = value, path, true
}

// ReadKeys reads the file of TANDEM_KEY_FILE again. Its error never shows what
// is in the file.
func ReadKeys(path string) (Keys, error) {
	raw, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	var keys Keys
	if err := keys.UnmarshalText(bytes.TrimSpace(raw)); err != nil {
		return nil, fmt.Errorf("read keys from %s: %w", path, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read keys from %s: the file is empty", path)
	}
	return keys, nil
}

// parse fills the struct by its tags. What does not parse is an error and
// keeps its zero value.
func (l *loader) parse() Config {
	var cfg Config
	environment := map[string]string{}
	for _, v := range l.table {
		environment[v.Name] = cmp.Or(l.values[v.Name], v.Default)
	}
	err := env.ParseWithOptions(&cfg, env.Options{Environment: environment})
	if all, ok := errors.AsType[env.AggregateError](err); ok {
		for _, one := range all.Errors {
			l.parseError(one)
		}
	}
	return cfg
}

func (l *loader) parseError(err error) {
	var parse env.ParseError
	if !errors.As(err, &parse) {
		l.errs = append(l.errs, Error{Variable: prefix + "*", Problem: err.Error()})
		return
	}
	field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
	l.add(field.Tag.Get("env"), "%s", describe(parse.Err, field.Type))
}

// describe puts the errors of the standard library's parsers in words.
func describe(err error, kind reflect.Type) string {
	var bad valueError
	switch {
	case errors.As(err, &bad):
		return bad.Error()
	case kind.String() == "time.Duration":
		return "not a duration; a number with ms, s, m or h is needed"
	case kind.Kind() == reflect.Bool:
		return "neither true nor false"
	case kind.String() == "netip.AddrPort":
		return "not an IP address with a port"
	default:
		return err.Error()
	}
}

func (l *loader) sort() {
	order := func(e Error) int {
		name := strings.TrimSuffix(e.Variable, FileSuffix)
		i := slices.IndexFunc(l.table, func(v Variable) bool { return v.Name == e.Variable || v.Name == name })
		if i < 0 {
			return len(l.table)
		}
		return i
	}
	slices.SortStableFunc(l.errs, func(a, b Error) int { return cmp.Compare(order(a), order(b)) })
}

// nearest gives the candidate with the fewest edits to name, or nothing when
// none is near enough to be a slip of the hand.
func nearest(name string, candidates []string) string {
	best, distance := "", 1+max(2, (len(name)-len(prefix))/3)
	for _, c := range candidates {
		if d := edits(name, c); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
