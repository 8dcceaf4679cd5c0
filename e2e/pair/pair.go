// Package pair puts both agents into a lab: keys, configuration files, start,
// status and stop, with the real binaries.
//
// Goroutines: none of its own; the lab owns the processes.
package pair

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/pkg/admin"
	"hawser/pkg/identity"
)

// Port is where the cloud listens.
const Port = 7443

// DirectPort is a TCP port that the edge does not steer: what goes there takes
// the direct path, which is the yardstick.
const DirectPort = 8080

// How long an agent may take until it works, its links until they are up, and an
// answer of its control socket. A busy machine may need that long; what is quick on
// a free one is for the tests to judge.
const (
	startLimit  = 30 * time.Second
	upLimit     = 30 * time.Second
	statusLimit = 10 * time.Second
)

// Options vary a Pair. The zero value is what most tests use.
type Options struct {
	Egress    string            // "hub" (default) or "socket"
	Intercept string            // "hub" (default) or "tproxy"
	Transport string            // of all links: "auto" (default), "tcp" or "quic"
	Lanes     int               // of all links; 0: as by default
	IPv6Links bool              // links run over IPv6
	Links     map[string]string // further keys of a link, by its name: "tier: standby"
	Handshake string            // of the edge; "" leaves it to the default
	Limits    string            // of the edge, as in the file; "" leaves them to the default
	Policies  string            // of the edge, as in the file
	Entry     string            // further keys of the edge's entry in the cloud's file: "limit: 20Mbit/s"
	Connects  string            // egress.limits of the cloud, as in the file; "" leaves them to the default
	Scheduler string            // of both agents, as in the file; "" leaves it to the default
	Workers   int
	Memory    string // budget of both agents, as in the file; "" leaves it to the default
	Card      string // kind of both agents' crypto card; default "auto"
	Exclude   []string
	Local     bool
	Metrics   string // address of both agents' metrics; "" = none
	LogLevel  string // default "info"
	EdgeEnv   []string
	CloudEnv  []string
}

// Pair is an edge and a cloud in a lab, and the lab's further edges, which are configured
// alike.
type Pair struct {
	Lab         *lab.Lab
	Edge, Cloud *lab.Proc
	Beside      map[string]*lab.Proc // the lab's further edges, by node: "edge2"

	opts                Options
	spec                lab.Spec
	edgeKey, cloudKey   identity.Key
	keys                map[string]identity.Key // of the further edges
	edgeConf, cloudConf string
}

// New writes keys and configuration files into the lab's directory. It starts
// nothing.
func New(l *lab.Lab, spec lab.Spec, o Options) (*Pair, error) {
	p := &Pair{Lab: l, Beside: map[string]*lab.Proc{}, opts: o, spec: spec, keys: map[string]identity.Key{}}
	var err error
	if p.edgeKey, err = identity.Generate(rand.Reader); err != nil {
		return nil, err
	}
	if p.cloudKey, err = identity.Generate(rand.Reader); err != nil {
		return nil, err
	}
	for name, key := range map[string]identity.Key{"edge.key": p.edgeKey, "cloud.key": p.cloudKey} {
		if err := os.WriteFile(p.path(name), key.Encode(), 0o600); err != nil {
			return nil, err
		}
	}
	if p.edgeConf, err = l.WriteFile("edge.yaml", p.EdgeYAML()); err != nil {
		return nil, err
	}
	for k := 2; k <= spec.Edges; k++ {
		if err := p.addEdge(fmt.Sprintf("edge%d", k)); err != nil {
			return nil, err
		}
	}
	p.cloudConf, err = l.WriteFile("cloud.yaml", p.CloudYAML())
	return p, err
}

// addEdge writes a further edge's key and configuration.
func (p *Pair) addEdge(node string) error {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		return err
	}
	p.keys[node] = key
	if err := os.WriteFile(p.path(node+".key"), key.Encode(), 0o600); err != nil {
		return err
	}
	_, err = p.Lab.WriteFile(node+".yaml", p.edgeYAML(node))
	return err
}

func (p *Pair) path(name string) string { return filepath.Join(p.Lab.Dir(), name) }

// EdgeConf and CloudConf are the files' paths.
func (p *Pair) EdgeConf() string { return p.edgeConf }

// CloudConf is the cloud's configuration file.
func (p *Pair) CloudConf() string { return p.cloudConf }

// EdgeYAML is the edge's configuration.
func (p *Pair) EdgeYAML() string { return p.edgeYAML("edge") }

func (p *Pair) edgeYAML(node string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: lab-%s\nidentity: %s\ncloud: {key: %q}\nlinks:\n", node, p.path(node+".key"), p.cloudKey.String())
	family := lab.IPv4
	if p.opts.IPv6Links {
		family = lab.IPv6
	}
	cloud := netip.AddrPortFrom(p.Lab.Address("cloud", family), Port)
	for _, u := range p.uplinks(node) {
		fmt.Fprintf(&b, "  - {name: %s, interface: %s, gateway: %q, cloud: %q, transport: %s%s%s}\n",
			u.Name, p.Lab.Interface(u.Name), p.Lab.Gateway(u.Name, family), cloud, or(p.opts.Transport, "auto"), more(p.opts.lanes()), more(p.opts.Links[u.Name]))
	}
	fmt.Fprintf(&b, "steer:\n  interfaces: [lan0]\n  local: %v\n  exclude: [%s]\n  ports: [\"1-%d\", \"%d-65535\"]\n  intercept: %s\n",
		p.opts.Local, quoted(p.opts.Exclude), DirectPort-1, DirectPort+1, or(p.opts.Intercept, "hub"))
	for key, value := range map[string]string{"handshake": p.opts.Handshake, "limits": p.opts.Limits, "policies": p.opts.Policies} {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	fmt.Fprintf(&b, "state: %s\n", p.path(node+".state"))
	p.shared(&b, node)
	return b.String()
}

// uplinks are those of an edge.
func (p *Pair) uplinks(node string) []lab.Uplink {
	return slices.DeleteFunc(slices.Clone(p.spec.Uplinks), func(u lab.Uplink) bool { return p.Lab.EdgeOf(u.Name) != node })
}

// CloudYAML is the cloud's configuration. The lab's origin has a unique local
// IPv6 address, which must be allowed.
func (p *Pair) CloudYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "identity: %s\nlisten: \":%d\"\nedges:\n  - {name: lab-edge, key: %q%s}\n", p.path("cloud.key"), Port, p.edgeKey.String(), more(p.opts.Entry))
	for _, node := range slices.Sorted(maps.Keys(p.keys)) {
		key := p.keys[node]
		fmt.Fprintf(&b, "  - {name: lab-%s, key: %q%s}\n", node, key.String(), more(p.opts.Entry))
	}
	limits := ""
	if p.opts.Connects != "" {
		limits = ", limits: " + p.opts.Connects
	}
	fmt.Fprintf(&b, "egress: {mode: %s, deny: [loopback, link-local, private], allow: [\"fd40::/64\"]%s}\n", or(p.opts.Egress, "hub"), limits)
	p.shared(&b, "cloud")
	return b.String()
}

func (p *Pair) shared(b *strings.Builder, role string) {
	fmt.Fprintf(b, "namespace: %s\ncontrol: %s\n", p.Namespace(role), p.Socket(role))
	if p.opts.Metrics != "" {
		fmt.Fprintf(b, "metrics: %q\n", p.opts.Metrics)
	}
	if p.opts.Card != "" {
		fmt.Fprintf(b, "card: {kind: %s}\n", p.opts.Card)
	}
	if p.opts.Memory != "" {
		fmt.Fprintf(b, "memory: %s\n", p.opts.Memory)
	}
	if p.opts.Scheduler != "" {
		fmt.Fprintf(b, "scheduler: %s\n", p.opts.Scheduler)
	}
	if p.opts.Workers > 0 {
		fmt.Fprintf(b, "workers: %d\n", p.opts.Workers)
	}
}

// Namespace is the network namespace that an agent makes.
func (p *Pair) Namespace(role string) string { return p.Lab.Namespace(role + "hub") }

// Socket is an agent's control socket.
func (p *Pair) Socket(role string) string { return p.path(role + ".sock") }

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (o *Options) lanes() string {
	if o.Lanes == 0 {
		return ""
	}
	return fmt.Sprintf("lanes: %d", o.Lanes)
}

func more(keys string) string {
	if keys == "" {
		return ""
	}
	return ", " + keys
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

// Start starts all agents and waits until all links are up and new connections go
// into the tunnel.
func (p *Pair) Start() error {
	if err := p.StartCloud(); err != nil {
		return err
	}
	if err := p.StartEdge(); err != nil {
		return err
	}
	for node := range p.keys {
		if err := p.StartBeside(node); err != nil {
			return err
		}
	}
	return p.WaitUp(len(p.uplinks("edge")), upLimit)
}

// StartCloud starts the cloud and waits until it listens.
func (p *Pair) StartCloud() (err error) {
	if p.Cloud, err = p.start("cloud", p.cloudConf, p.opts.CloudEnv); err != nil {
		return err
	}
	return p.Cloud.WaitFor("cloud runs", startLimit)
}

// StartEdge starts the edge and waits until it works.
func (p *Pair) StartEdge() (err error) {
	if p.Edge, err = p.start("edge", p.edgeConf, p.opts.EdgeEnv); err != nil {
		return err
	}
	return p.Edge.WaitFor("edge runs", startLimit)
}

// StartBeside starts a further edge, such as "edge2", and waits until its links are up.
func (p *Pair) StartBeside(node string) error {
	proc, err := p.start(node, p.path(node+".yaml"), p.opts.EdgeEnv)
	if err != nil {
		return err
	}
	p.Beside[node] = proc
	if err := proc.WaitFor("edge runs", startLimit); err != nil {
		return err
	}
	return p.waitUp(node, len(p.uplinks(node)), upLimit)
}

// start starts an agent on its node.
func (p *Pair) start(node, conf string, env []string) (*lab.Proc, error) {
	program := "hawser/edge"
	if node == "cloud" {
		program = "hawser/cloud"
	}
	bin, err := lab.Binary(program)
	if err != nil {
		return nil, err
	}
	argv := append([]string{"env"}, env...)
	argv = append(argv, bin, "run", "-c", conf, "--log-level", or(p.opts.LogLevel, "info"))
	return p.Lab.Start(node, argv...)
}

// Status asks an agent.
func (p *Pair) Status(role string) (admin.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
	defer cancel()
	return admin.Fetch(ctx, p.Socket(role))
}

// Links returns the links of the edge's session by name.
func (p *Pair) Links() (map[string]admin.Link, error) {
	s, err := p.Status("edge")
	if err != nil {
		return nil, err
	}
	out := map[string]admin.Link{}
	for _, l := range s.Sessions[0].Links {
		out[l.Name] = l
	}
	return out, nil
}

// WaitUp waits until n links are up and new connections no longer go around the tunnel.
func (p *Pair) WaitUp(n int, limit time.Duration) error { return p.waitUp("edge", n, limit) }

func (p *Pair) waitUp(node string, n int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		s, err := p.Status(node)
		up := 0
		for _, session := range s.Sessions {
			for _, l := range session.Links {
				if l.State == "up" {
					up++
				}
			}
		}
		if err == nil && up >= n && !s.Detour {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d of %d links are up after %v, detour %v: %+v %w\nedge: %s\ncloud: %s", node, up, n, limit, s.Detour, s.Sessions, err, p.Edge.Output(), p.Cloud.Output())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// WaitIdle waits until no agent has a flow.
func (p *Pair) WaitIdle(limit time.Duration) error {
	return waitIdle(limit, p.Status, append([]string{"edge", "cloud"}, slices.Collect(maps.Keys(p.Beside))...))
}

// waitIdle waits until none of the programs has a flow.
func waitIdle(limit time.Duration, status func(string) (admin.Status, error), programs []string) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		var open uint64
		for _, program := range programs {
			s, err := status(program)
			if err != nil {
				return err
			}
			for _, session := range s.Sessions {
				open += session.Flows.Open
			}
		}
		if open == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d flows still open after %v", open, limit)
		}
	}
}

// Stop stops all agents and reports how they ended.
func (p *Pair) Stop() error {
	var err error
	for _, proc := range append(slices.Collect(maps.Values(p.Beside)), p.Edge, p.Cloud) {
		if proc == nil {
			continue
		}
		if e := proc.Stop(); e != nil && err == nil {
			err = fmt.Errorf("%w\n%s", e, proc.Output())
		}
	}
	return err
}

// ReplaceKey changes the peer's key in a configuration file, edge.yaml or
// cloud.yaml.
func (p *Pair) ReplaceKey(file, key string) error {
	text, old := p.EdgeYAML(), p.cloudKey.String()
	if file == "cloud.yaml" {
		text, old = p.CloudYAML(), p.edgeKey.String()
	}
	_, err := p.Lab.WriteFile(file, strings.ReplaceAll(text, old, key))
	return err
}
