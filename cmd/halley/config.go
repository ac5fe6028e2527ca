package main

import (
	"errors"
	"fmt"
	"io"
	"os"
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

	bytes int64 // of RetainBytes
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

// checkSlow reports what is wrong with the settings for slow clients.
func (p *policy) checkSlow() error {
	policy, ok := slowPolicies[p.SlowClients]
	switch {
	case !ok:
		return fmt.Errorf("slow-clients is %q, not catch-up, latest or cut", p.SlowClients)
	case policy == halley.Cut && p.SlowLimit == nil:
		return errors.New("slow-clients: cut needs a slow-limit, in messages")
	case policy != halley.Cut && p.SlowLimit != nil:
		return errors.New("slow-limit is only for slow-clients: cut")
	case policy == halley.Cut && *p.SlowLimit < 1:
		return fmt.Errorf("slow-limit is %d, not at least 1", *p.SlowLimit)
	}
	return nil
}

// UnmarshalYAML checks what it decodes, and names the line at fault.
func (p *policy) UnmarshalYAML(n *yaml.Node) error {
	type plain policy
	if err := strictly(n, (*plain)(p)); err != nil {
		return err
	}
	if err := engine.CheckPattern(p.Pattern); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	if p.RetainBytes != nil {
		b, err := units.ParseBase2Bytes(*p.RetainBytes)
		if err != nil {
			return fmt.Errorf("line %d: retain-bytes: %w", n.Line, err)
		}
		p.bytes = int64(b)
	}
	if err := p.rule(engine.Retention{}).Check(); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	if err := p.checkSlow(); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

// strictly decodes a mapping and refuses keys that v has not.
func strictly(n *yaml.Node, v any) error {
	known := map[string]bool{"pattern": true, "retain-count": true, "retain-age": true, "retain-bytes": true, "active-content": true, "slow-clients": true, "slow-limit": true}
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if k := n.Content[i]; !known[k.Value] {
				return fmt.Errorf("line %d: %q is not a setting of a policy", k.Line, k.Value)
			}
		}
	}
	return n.Decode(v)
}

// loadConfig reads a configuration file for kong. Every key is a flag of
// serve, but for channels.
func (c *serveCmd) loadConfig(r io.Reader) (kong.Resolver, error) {
	var root yaml.Node
	if err := yaml.NewDecoder(r).Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return kong.ResolverFunc(func(*kong.Context, *kong.Path, *kong.Flag) (any, error) { return nil, nil }), nil
		}
		return nil, err
	}
	file := root.Content[0]
	if file.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want settings, as name: value", file.Line)
	}
	f := &configFile{values: map[string]any{}, lines: map[string]int{}}
	for i := 0; i < len(file.Content); i += 2 {
		key, value := file.Content[i], file.Content[i+1]
		if key.Value == "channels" {
			if err := value.Decode(&c.policies); err != nil {
				return nil, fmt.Errorf("channels: %w", err)
			}
			continue
		}
		var v any
		if err := value.Decode(&v); err != nil {
			return nil, fmt.Errorf("line %d: %w", value.Line, err)
		}
		if value.Kind == yaml.ScalarNode {
			v = value.Value // as written, for the flag to parse
		}
		f.values[key.Value], f.lines[key.Value] = v, key.Line
	}
	return f, nil
}

// A configFile gives flags their values from a file.
type configFile struct {
	values map[string]any
	lines  map[string]int
}

// Validate refuses keys that are no flags.
func (f *configFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	for _, cmd := range app.Children {
		if cmd.Name != "serve" {
			continue
		}
		for _, flag := range cmd.Flags {
			known[flag.Name] = true
		}
	}
	delete(known, "config")
	for key, line := range f.lines {
		if !known[key] {
			return fmt.Errorf("line %d: %q is not a setting", line, key)
		}
	}
	return nil
}

// Resolve returns what the file says of a flag, unless the environment says
// something.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return nil, nil
		}
	}
	return f.values[flag.Name], nil
}
