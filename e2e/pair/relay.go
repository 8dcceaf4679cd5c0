package pair

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/pkg/admin"
	"hawser/pkg/identity"
)

// RelayPort is where the gateway listens.
const RelayPort = 7444

// Forward is a port of the edge's LAN address and the server behind it.
type Forward struct {
	Port uint16
	To   netip.AddrPort
}

// Relay is the stand-alone relay in a lab: its client side on the edge's node,
// the gateway on the cloud's.
type Relay struct {
	Lab       *lab.Lab
	Near, Far *lab.Proc
	Via       netip.AddrPort // where the client side connects to; the gateway, unless changed before Start
	Forwards  []Forward
	Extra     string // lines for both files
	NearKey   string // public keys as the other side's file names them
	FarKey    string
	NearEnv   []string
	FarEnv    []string
}

// NewRelay writes keys. It starts nothing.
func NewRelay(l *lab.Lab, forwards ...Forward) (*Relay, error) {
	r := &Relay{Lab: l, Forwards: forwards, Via: netip.AddrPortFrom(l.Address("cloud", lab.IPv4), RelayPort)}
	for name, public := range map[string]*string{"near.key": &r.NearKey, "far.key": &r.FarKey} {
		key, err := identity.Generate(rand.Reader)
		if err != nil {
			return nil, err
		}
		*public = key.String()
		if err := os.WriteFile(r.path(name), key.Encode(), 0o600); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Relay) path(name string) string { return filepath.Join(r.Lab.Dir(), name) }

// NearYAML is the client side's configuration.
func (r *Relay) NearYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "identity: %s\ngateway: {address: %q, key: %q}\ncontrol: %s\n%sforward:\n", r.path("near.key"), r.Via, r.FarKey, r.path("near.sock"), r.Extra)
	for i, f := range r.Forwards {
		fmt.Fprintf(&b, "  - {listen: \"%v\", service: s%d}\n", netip.AddrPortFrom(r.Lab.Address("edge", lab.IPv4), f.Port), i)
	}
	return b.String()
}

// FarYAML is the gateway's configuration.
func (r *Relay) FarYAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "identity: %s\nlisten: \":%d\"\nclients: [{name: lab, key: %q}]\ncontrol: %s\n%sservices:\n", r.path("far.key"), RelayPort, r.NearKey, r.path("far.sock"), r.Extra)
	for i, f := range r.Forwards {
		fmt.Fprintf(&b, "  - {name: s%d, to: \"%v\"}\n", i, f.To)
	}
	return b.String()
}

// Start starts both sides and waits for their association.
func (r *Relay) Start() error {
	if err := r.StartFar(); err != nil {
		return err
	}
	if err := r.StartNear(); err != nil {
		return err
	}
	return r.Near.WaitFor("associated with the gateway", upLimit)
}

// StartFar starts the gateway.
func (r *Relay) StartFar() (err error) {
	r.Far, err = r.start("cloud", "far.yaml", r.FarYAML(), r.FarEnv)
	return err
}

// StartNear starts the client side.
func (r *Relay) StartNear() (err error) {
	r.Near, err = r.start("edge", "near.yaml", r.NearYAML(), r.NearEnv)
	return err
}

func (r *Relay) start(role, file, text string, env []string) (*lab.Proc, error) {
	conf, err := r.Lab.WriteFile(file, text)
	if err != nil {
		return nil, err
	}
	bin, err := lab.Binary("hawser/" + role)
	if err != nil {
		return nil, err
	}
	p, err := r.Lab.Start(role, append(append([]string{"env"}, env...), bin, "relay", "-c", conf)...)
	if err != nil {
		return nil, err
	}
	return p, p.WaitFor("relay runs", startLimit)
}

// Status asks a side: "near" or "far".
func (r *Relay) Status(side string) (admin.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
	defer cancel()
	return admin.Fetch(ctx, r.path(side+".sock"))
}

// WaitIdle waits until neither side has a flow.
func (r *Relay) WaitIdle(limit time.Duration) error {
	return waitIdle(limit, r.Status, []string{"near", "far"})
}

// Stop stops both sides and reports how they ended.
func (r *Relay) Stop() error {
	var errs []error
	for _, p := range []*lab.Proc{r.Near, r.Far} {
		if p == nil {
			continue
		}
		if err := p.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("%w\n%s", err, p.Output()))
		}
	}
	return errors.Join(errs...)
}
