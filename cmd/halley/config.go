package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/alecthomas/units"
	"gopkg.in/yaml.v3"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// A policy is an entry of the file's channels list. The first whose pattern
// matches a channel holds; what it leaves out is as for other channels.
type policy struct {
	Pattern     string         `yaml:"pattern"`
	RetainCount *int           `yaml:"retain-count"`
	RetainAge   *time.Duration `yaml:"retain-age"`
	RetainBytes *string        `yaml:"retain-bytes"`
	// ActiveContent lets HTML, SVG and XML out by raw multipart.
	ActiveContent bool `yaml:"active-content"`
	// SlowClients is catch-up, latest or cut; SlowLimit is for cut.
	SlowClients string `yaml:"slow-clients"`
	SlowLimit   *int   `yaml:"slow-limit"` // messages

	bytes int64      // of RetainBytes
	at    *yaml.Node // in the file
}

// rule returns the retention of the policy's channels, where otherwise holds
// for what the policy leaves out.
func (p *policy) rule(otherwise engine.Retention) engine.RetentionRule {
	r := otherwise
	if p.RetainCount != nil {
		r.Count = *p.RetainCount
	}
	if p.RetainAge != nil {
		r.Age = *p.RetainAge
	}
	if p.RetainBytes != nil {
		r.Bytes = p.bytes
	}
	return engine.RetentionRule{Pattern: p.Pattern, Retention: r}
}

// slowPolicies are the policies for slow clients by their names; a policy that
// does not say is as for other channels.
var slowPolicies = map[string]halley.SlowClientPolicy{
	"": halley.CatchUp, "catch-up": halley.CatchUp, "latest": halley.LatestOnly, "cut": halley.Cut,
}

// slowClients returns what becomes of slow clients in the policy's channels.
func (p *policy) slowClients() halley.SlowClientRule {
	r := halley.SlowClientRule{Pattern: p.Pattern, Policy: slowPolicies[p.SlowClients]}
	if p.SlowLimit != nil {
		r.Limit = *p.SlowLimit
	}
	return r
}

// checkSlow reports what is wrong with the settings for slow clients, and the
// member at fault.
func (p *policy) checkSlow() (member string, err error) {
	policy, ok := slowPolicies[p.SlowClients]
	switch {
	case !ok:
		return "slow-clients", fmt.Errorf("slow-clients is %q, not catch-up, latest or cut", p.SlowClients)
	case policy == halley.Cut && p.SlowLimit == nil:
		return "slow-clients", errors.New("slow-clients: cut needs a slow-limit, in messages")
	case policy != halley.Cut && p.SlowLimit != nil:
		return "slow-limit", errors.New("slow-limit is only for slow-clients: cut")
	case policy == halley.Cut && *p.SlowLimit < 1:
		return "slow-limit", fmt.Errorf("slow-limit is %d, not at least 1", *p.SlowLimit)
	}
	return "", nil
}

// A problem is what is wrong in a configuration file, or with a setting.
type problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // from 1, as the column; 0 if it is in no line of the file
	Column  int    `json:"column,omitempty"`
	Setting string `json:"setting,omitempty"`
	Text    string `json:"text"`
}

func (p problem) String() string {
	if place := p.place(); place != "" {
		return place + ": " + p.Text
	}
	return p.Text
}

// place is where the problem is, as compilers write it.
func (p problem) place() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// problems are all that is wrong, as one error.
type problems []problem

// sort puts the problems in the order of the file, and those of no line first.
func (p problems) sort() {
	slices.SortStableFunc(p, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

func (p problems) Error() string {
	var lines []string
	for _, one := range p {
		lines = append(lines, one.String())
	}
	return strings.Join(lines, "\n")
}

// A configFile is a configuration file that has been read. What is wrong with
// it is in problems, and its settings are those that are right.
type configFile struct {
	name     string
	settings []setting
	policies []policy
	problems problems
}

// A setting is a key of the file and its value.
type setting struct {
	flag  *kong.Flag
	key   *yaml.Node
	items []*yaml.Node // of a list, else the value alone
	list  bool
}

// at is where the setting's value is.
func (s *setting) at() *yaml.Node {
	if len(s.items) == 0 {
		return s.key
	}
	return s.items[0]
}

// value returns the setting's value for its flag to parse: as it is written,
// since what YAML makes of it is not what the flag means.
func (s *setting) value() any {
	if !s.list {
		return s.items[0].Value
	}
	values := []any{}
	for _, item := range s.items {
		values = append(values, item.Value)
	}
	return values
}

// readConfig reads a configuration file. Every key is a flag of serve, but for
// channels.
func readConfig(r io.Reader, name string) *configFile {
	f := &configFile{name: name}
	f.read(r)
	f.checkValues()
	f.problems.sort()
	return f
}

func (f *configFile) read(r io.Reader) {
	decoder := yaml.NewDecoder(r)
	var root, second yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return // an empty file
	} else if err != nil {
		f.reportSyntax(err)
		return
	}
	if err := decoder.Decode(&second); err == nil {
		f.report(&second, "", "a second document: the settings are in one")
	} else if !errors.Is(err, io.EOF) {
		f.reportSyntax(err)
	}
	file := dealias(root.Content[0])
	if file.Kind != yaml.MappingNode {
		f.report(file, "", "want settings, as name: value")
		return
	}
	flags := serveFlags(kong.Must(new(cli), kong.Name("halley")))
	names := []string{"channels"}
	for name := range flags {
		names = append(names, name)
	}
	f.members(file, "a setting", names, func(key, value *yaml.Node) {
		if key.Value == "channels" {
			f.readPolicies(value)
			return
		}
		f.readSetting(flags[key.Value], key, value)
	})
}

// syntax is how an error of the YAML package begins.
var syntax = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// reportSyntax notes what keeps the file from being read.
func (f *configFile) reportSyntax(err error) {
	var at *yaml.Node
	if m := syntax.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		line, _ := strconv.Atoi(m[1])
		at = &yaml.Node{Line: line, Column: 1}
	}
	f.report(at, "", "%s", syntax.ReplaceAllString(err.Error(), ""))
}

// report notes a problem at a place in the file.
func (f *configFile) report(at *yaml.Node, setting, format string, args ...any) {
	p := problem{File: f.name, Setting: setting, Text: fmt.Sprintf(format, args...)}
	if at != nil {
		p.Line, p.Column = at.Line, at.Column
	}
	f.problems = append(f.problems, p)
}

// members calls do with the keys of a mapping and their values, but for those
// that are not known or are there twice.
func (f *configFile) members(mapping *yaml.Node, what string, known []string, do func(key, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], dealias(mapping.Content[i+1])
		line, twice := seen[key.Value]
		switch {
		case !slices.Contains(known, key.Value):
			f.report(key, key.Value, "%q is not %s%s", key.Value, what, didYouMean(key.Value, known))
		case twice:
			f.report(key, key.Value, "%s is in line %d already", key.Value, line)
		default:
			seen[key.Value] = key.Line
			do(key, value)
		}
	}
}

// dealias returns what a node stands for.
func dealias(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func (f *configFile) readSetting(flag *kong.Flag, key, value *yaml.Node) {
	s := setting{flag: flag, key: key, items: []*yaml.Node{value}}
	if value.Kind == yaml.SequenceNode {
		if s.list = flag.IsSlice(); !s.list {
			f.report(value, key.Value, "%s is a list: want one value", key.Value)
			return
		}
		s.items = nil
		for _, item := range value.Content {
			s.items = append(s.items, dealias(item))
		}
	}
	for _, item := range s.items {
		switch {
		case item.Kind != yaml.ScalarNode:
			f.report(item, key.Value, "%s: want a value, and nothing in it", key.Value)
			return
		case item.Tag == "!!null":
			f.report(key, key.Value, "%s has no value", key.Value)
			return
		}
	}
	f.settings = append(f.settings, s)
}

// checkValues reports the settings whose values serve refuses, and removes
// them. An error hides those after it. So it is put down to the setting without
// which it is not there, that one is left out, and the rest is tried again.
func (f *configFile) checkValues() {
	f.eliminate(false, (*serveCmd).checkValues)
}

// eliminate tries the settings, in the environment if environ is set, until
// nothing is wrong that is theirs. It returns what remains wrong.
func (f *configFile) eliminate(environ bool, check func(*serveCmd) error) error {
	try := func(settings []setting) error {
		c, _, err := f.parse(settings, environ)
		if err == nil {
			err = check(c)
		}
		return err
	}
	for {
		err := try(f.settings)
		if err == nil {
			return nil
		}
		without := func(i, item int) error {
			settings := slices.Clone(f.settings)
			if s := &settings[i]; s.list && item >= 0 {
				s.items = slices.Delete(slices.Clone(s.items), item, item+1)
			} else {
				settings = slices.Delete(settings, i, i+1)
			}
			return try(settings)
		}
		i := 0
		for i < len(f.settings) && alike(err, without(i, -1)) {
			i++
		}
		if i == len(f.settings) {
			return err
		}
		s := &f.settings[i]
		item := 0
		for item < len(s.items) && (len(s.items) == 1 || alike(err, without(i, item))) {
			item++
		}
		if item < len(s.items) {
			f.report(s.items[item], s.flag.Name, "%s", explain(s.flag, err))
			s.items = slices.Delete(slices.Clone(s.items), item, item+1)
			continue
		}
		f.report(s.at(), s.flag.Name, "%s", explain(s.flag, err))
		f.settings = slices.Delete(f.settings, i, i+1)
	}
}

// option is how errors of the library name a field: the place in a list is not
// that in the file once another entry was left out.
var option = regexp.MustCompile(`^(halley: )?Options\.\w+(\[\d+\])?(\.\w+)*:? ?`)

// alike tells whether two errors are of the same fault.
func alike(a, b error) bool {
	return b != nil && option.ReplaceAllString(a.Error(), "") == option.ReplaceAllString(b.Error(), "")
}

// explain says what is wrong with a setting, under the name it has in the file.
func explain(flag *kong.Flag, err error) string {
	text := option.ReplaceAllString(err.Error(), "")
	text = strings.TrimPrefix(text, flag.ShortSummary())
	text = strings.TrimPrefix(text, ":")
	return flag.Name + " " + strings.TrimPrefix(text, " ")
}

// parse returns the settings as serve has them, and its flags, with what the
// environment says if environ is set.
func (f *configFile) parse(settings []setting, environ bool) (*serveCmd, map[string]*kong.Flag, error) {
	values := map[string]any{}
	for _, s := range settings {
		values[s.flag.Name] = s.value()
	}
	var c cli
	parser := kong.Must(&c, kong.Name("halley"), kong.Resolvers(resolver(values)))
	if !environ {
		for _, flag := range serveFlags(parser) {
			flag.Envs, flag.Tag.Envs = nil, nil
		}
	}
	if _, err := parser.Parse([]string{"serve"}); err != nil {
		return nil, nil, err
	}
	c.Serve.policies = f.policies
	return &c.Serve, serveFlags(parser), nil
}

// checkValues reports the first setting whose value is not possible, whatever
// the others are.
func (c *serveCmd) checkValues() error {
	for _, bound := range []struct {
		flag     string
		negative bool
	}{
		{"retain-count", c.RetainCount < 0},
		{"retain-age", c.RetainAge < 0},
		{"retain-bytes", c.RetainBytes < 0},
		{"disk-limit", c.DiskLimit < 0},
		{"memory-limit", c.MemoryLimit < 0},
		{"drain-timeout", c.DrainTimeout < 0},
	} {
		if bound.negative {
			return fmt.Errorf("--%s is negative", bound.flag)
		}
	}
	return c.options().Check()
}

// readPolicies reads the list of policies.
func (f *configFile) readPolicies(list *yaml.Node) {
	if list.Kind != yaml.SequenceNode {
		f.report(list, "channels", "channels: want a list of policies")
		return
	}
	for _, n := range list.Content {
		n = dealias(n)
		if n.Kind != yaml.MappingNode {
			f.report(n, "channels", "want a policy, such as pattern: chat/**")
			continue
		}
		before := len(f.problems)
		if p := f.readPolicy(n); len(f.problems) == before {
			f.policies = append(f.policies, p)
		}
	}
}

// readPolicy reads one policy, and reports all that is wrong with it.
func (f *configFile) readPolicy(n *yaml.Node) policy {
	p := policy{at: n}
	fields := map[string]reflect.Value{}
	var names []string
	for v, i := reflect.ValueOf(&p).Elem(), 0; i < v.NumField(); i++ {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = v.Field(i)
			names = append(names, name)
		}
	}
	places := map[string]*yaml.Node{}
	bad := map[string]bool{}
	report := func(member string, err error) {
		at, ok := places[member]
		if !ok {
			at = n
		}
		f.report(at, "channels", "%s", err)
		bad[member] = true
	}
	f.members(n, "a setting of a policy", names, func(key, value *yaml.Node) {
		places[key.Value] = value
		field := fields[key.Value]
		if value.Tag == "!!null" || value.Decode(field.Addr().Interface()) != nil {
			report(key.Value, fmt.Errorf("%s is %q, want %s", key.Value, value.Value, wanted(field.Type())))
		}
	})
	if _, ok := places["pattern"]; !ok {
		report("pattern", errors.New("a policy without a pattern"))
	}
	if p.RetainBytes != nil {
		b, err := units.ParseBase2Bytes(*p.RetainBytes)
		if err != nil {
			report("retain-bytes", fmt.Errorf("retain-bytes: %w", err))
		}
		p.bytes = int64(b)
	}
	if !bad["pattern"] {
		if err := f.checkPattern(p.Pattern); err != nil {
			report("pattern", err)
		}
	}
	for _, bound := range []struct {
		member   string
		negative bool
	}{
		{"retain-count", p.RetainCount != nil && *p.RetainCount < 0},
		{"retain-age", p.RetainAge != nil && *p.RetainAge < 0},
		{"retain-bytes", p.bytes < 0},
	} {
		if bound.negative {
			report(bound.member, fmt.Errorf("%s is negative", bound.member))
		}
	}
	if !bad["slow-clients"] && !bad["slow-limit"] {
		if member, err := p.checkSlow(); err != nil {
			report(member, err)
		}
	}
	return p
}

// checkPattern reports what is wrong with a pattern that comes after the
// policies there are.
func (f *configFile) checkPattern(pattern string) error {
	if err := engine.CheckPattern(pattern); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), engine.ErrInvalid.Error()+": "))
	}
	for _, q := range f.policies {
		if engine.Covers(q.Pattern, pattern) {
			return fmt.Errorf("%s is never used: %s in line %d, which goes first, matches all of its channels", pattern, q.Pattern, q.at.Line)
		}
	}
	return nil
}

// wanted says what a policy's member takes.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration, such as 90s or 24h"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a text"
}

// serveFlags returns the flags that may be in a configuration file.
func serveFlags(parser *kong.Kong) map[string]*kong.Flag {
	flags := map[string]*kong.Flag{}
	for _, cmd := range parser.Model.Children {
		if cmd.Name != "serve" {
			continue
		}
		for _, flag := range cmd.Flags {
			if flag.Name != "config" && flag.Name != "help" && flag.Name != "dry-run" {
				flags[flag.Name] = flag
			}
		}
	}
	return flags
}

// didYouMean suggests the name that is nearest to one that is not known, if it
// is near.
func didYouMean(name string, known []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbours to make a of b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
		for j := range rows[i] {
			if i == 0 {
				rows[0][j] = j
				continue
			}
			if j == 0 {
				continue
			}
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// loadConfig reads a configuration file for kong. It fails with all that is
// wrong in it.
func (c *serveCmd) loadConfig(r io.Reader) (kong.Resolver, error) {
	name := "the configuration file"
	if file, ok := r.(*os.File); ok {
		name = file.Name()
	}
	f := readConfig(r, name)
	if len(f.problems) > 0 {
		return nil, f.problems
	}
	c.policies = f.policies
	values := map[string]any{}
	for _, s := range f.settings {
		values[s.flag.Name] = s.value()
	}
	return resolver(values), nil
}

// resolver gives flags of serve their values from a file, but for those that
// the environment says something of.
func resolver(values map[string]any) kong.Resolver {
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if _, ok := os.LookupEnv(name); ok {
				return nil, nil
			}
		}
		return values[flag.Name], nil
	})
}
