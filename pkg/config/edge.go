package config

import (
	"fmt"
	"path"
)

// ParseEdge reads the bytes of an edge.yaml. The name stands in errors, which
// are one line each; the first mistake found is returned.
func ParseEdge(name string, data []byte) (*Edge, error) {
	e := &Edge{}
	d := &document{name: name, lines: map[string]int{}}
	if err := d.read(data, e.schema()); err != nil {
		return nil, err
	}
	if err := e.fill(d); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Edge) schema() setter {
	return object(e.Box.with(fields{
		"name":  parsed(&e.Name, ParseName),
		"cloud": object(fields{"key": parsed(&e.Cloud.Key, parseKey)}),
		"links": sequence(&e.Links, (*Link).schema),
		"steer": object(fields{
			"interfaces": sequence(&e.Steer.Interfaces, func(s *string) setter { return parsed(s, parseInterface) }),
			"local":      flag(&e.Steer.Local),
			"exclude":    sequence(&e.Steer.Exclude, one(parsePrefix)),
			"ports":      sequence(&e.Steer.Ports, one(parsePorts)),
			"intercept":  enum(&e.Steer.Intercept, intercepts[:]),
			"fail_open":  optional(&e.Steer.FailOpen),
		}),
		"state":     parsed(&e.State, parsePath),
		"hints":     parsed(&e.Hints, parsePath),
		"users":     e.Users.schema(),
		"handshake": enum(&e.Handshake, handshakes[:]),
		"limits":    e.Limits.schema(),
		"policies":  sequence(&e.Policies, (*Policy).schema),
	}))
}

func (l *Link) schema() setter {
	return object(fields{
		"name":      parsed(&l.Name, ParseName),
		"interface": parsed(&l.Interface, parseInterface),
		"gateway":   parsed(&l.Gateway, parseGateway),
		"cloud":     parsed(&l.Cloud, parseRemote),
		"transport": enum(&l.Transport, transports[:]),
		"tier":      enum(&l.Tier, tiers[:]),
		"weight":    parsed(&l.Weight, ranged(1, MaxWeight, "")),
		"lanes":     parsed(&l.Lanes, ranged(1, MaxLanes, "")),
		"quota":     parsed(&l.Quota, parseQuota),
		"quota_day": parsed(&l.QuotaDay, ranged(1, 31, ", a day of the month")),

		"trial_seconds": parsed(&l.TrialSeconds, ranged(MinTrial, MaxTrial, "")),
	})
}

// with adds the keys that both files share.
func (b *Box) with(own fields) fields {
	own["identity"] = parsed(&b.Identity, parsePath)
	own["namespace"] = parsed(&b.Namespace, ParseName)
	own["control"] = parsed(&b.Control, parseSocket)
	own["metrics"] = parsed(&b.Metrics, parseMetrics)
	own["workers"] = parsed(&b.Workers, parseWorkers)
	own["memory"] = parsed(&b.Memory, parseMemory)
	own["compress"] = enum(&b.Compress, compressions[:])
	own["card"] = b.Card.schema()
	own["scheduler"] = b.Scheduler.schema()
	return own
}

// one makes a sequence's element setter from a parse function.
func one[T any](parse func(string) (T, error)) func(*T) setter {
	return func(dst *T) setter { return parsed(dst, parse) }
}

// fill sets the defaults of what the file leaves out, then checks what no
// single value shows.
func (e *Edge) fill(d *document) error {
	e.Box.fill("edge")
	e.Limits.fill()
	if e.State == "" {
		e.State = DefaultState
	}
	if err := e.checkState(d); err != nil {
		return err
	}
	if !d.has("cloud.key") {
		return d.fail("cloud.key", "missing: paste what `hawser-cloud pubkey` prints on the cloud")
	}
	if len(e.Links) == 0 {
		return d.fail("links", "missing: list at least one uplink, such as {name: lte, interface: wwan0, cloud: \"203.0.113.10:%d\"}", DefaultPort)
	}
	if len(e.Links) > MaxLinks {
		return d.fail("links", "%d of them: at most %d", len(e.Links), MaxLinks)
	}
	for i := range e.Links {
		e.Links[i].Lanes = max(e.Links[i].Lanes, 1)
		if e.Links[i].Weight == 0 {
			e.Links[i].Weight = 1
		}
		if err := e.checkLink(d, i); err != nil {
			return err
		}
	}
	if err := e.checkSteer(d); err != nil {
		return err
	}
	return fillPolicies(d, "policies", e.Policies)
}

func (b *Box) fill(role string) {
	if b.Identity == "" {
		b.Identity = "/etc/hawser/" + role + ".key"
	}
	if b.Namespace == "" {
		b.Namespace = DefaultNamespace
	}
	if b.Control == "" {
		b.Control = "/run/hawser/" + role + ".sock"
	}
	if b.Memory == 0 {
		b.Memory = DefaultMemory
	}
	if b.Card.Queue == 0 {
		b.Card.Queue = DefaultQueue
	}
}

// apart sees to it that metrics do not take the address at path.
func (b *Box) apart(d *document, path string, at Endpoint) error {
	if d.has("metrics") && b.Metrics.meets(at) {
		return d.fail("metrics", "%s is what %s takes: give it another port", b.Metrics, path)
	}
	return nil
}

// checkState refuses a file that is something else already: what is no state in it would be
// put aside, the private key too, and its place taken.
func (e *Edge) checkState(d *document) error {
	for _, other := range []struct{ is, path string }{
		{"what identity names", e.Identity}, {"what control names", e.Control}, {"what hints names", e.Hints}, {"this file", path.Clean(d.name)},
	} {
		if e.State == other.path {
			return d.fail("state", "%s is %s: give it a file of its own, such as %s", e.State, other.is, DefaultState)
		}
	}
	return nil
}

func (e *Edge) checkLink(d *document, i int) error {
	path := fmt.Sprintf("links[%d]", i)
	l := &e.Links[i]
	if l.Lanes > 1 && l.Transport != TransportTCP {
		return d.fail(path+".lanes", "only TCP links have several: set transport: tcp, or leave lanes out")
	}
	if l.TrialSeconds != 0 && l.Transport != TransportAuto {
		return d.fail(path+".trial_seconds", "only automatic links try their other transport: set transport: auto, or leave trial_seconds out")
	}
	if l.TrialSeconds == 0 && l.Transport == TransportAuto {
		l.TrialSeconds = DefaultTrial
	}
	if l.Quota == 0 && l.QuotaDay != 0 {
		return d.fail(path+".quota_day", "stands without a quota: give quota too, such as 50GB")
	}
	if l.Quota != 0 && l.QuotaDay == 0 {
		l.QuotaDay = 1
	}
	switch {
	case l.Name == "":
		return d.fail(path+".name", "missing: give the link a name of its own, such as lte")
	case l.Interface == "":
		return d.fail(path+".interface", "missing: name the link's network interface, such as wwan0")
	case l.Cloud == Endpoint{}:
		return d.fail(path+".cloud", "missing: give the cloud's address, such as \"203.0.113.10:%d\"", DefaultPort)
	}
	if l.Gateway.Is4() && l.Cloud.Addr.Is6() { // the other way round it is NAT64
		return d.fail(path+".gateway", "%s and the link's cloud %s are not of one IP version", l.Gateway, l.Cloud)
	}
	for j, other := range e.Links[:i] {
		if other.Name == l.Name {
			return d.fail(path+".name", "%q is already the name of links[%d]: give each link its own", l.Name, j)
		}
		if other.Interface == l.Interface && l.Gateway.IsValid() && other.Gateway.Is4() == l.Gateway.Is4() && other.Gateway != l.Gateway && other.Gateway.IsValid() {
			return d.fail(path+".gateway", "links[%d] leaves by %s to %s, and one interface has one gateway: give the link another interface, such as a macvlan", j, l.Interface, other.Gateway)
		}
		other.Name = l.Name
		if other == *l {
			return d.fail(path, "the same as links[%d] but for its name: remove one", j)
		}
	}
	return nil
}

func (e *Edge) checkSteer(d *document) error {
	if len(e.Steer.Interfaces) == 0 && !e.Steer.Local {
		return d.fail("steer", "steers nothing: name the clients' interfaces in steer.interfaces, or set steer.local: true")
	}
	for i, name := range e.Steer.Interfaces {
		for j, other := range e.Steer.Interfaces[:i] {
			if name == other {
				return d.fail(fmt.Sprintf("steer.interfaces[%d]", i), "%q is already steer.interfaces[%d]: remove one", name, j)
			}
		}
	}
	return nil
}
