package config

import (
	"fmt"
	"slices"
)

// DefaultRelayPort is where a gateway listens.
const DefaultRelayPort = 7444

// MostServices is how many services one client may be given.
const MostServices = 28

// EdgeRelay is a parsed edge-relay.yaml: the client side of the stand-alone
// relay. Namespace and Scheduler mean nothing to it.
type EdgeRelay struct {
	Box
	Gateway Gateway
	Forward []Forward // at least one; Listen is unique
}

// Gateway is the relay that a client connects to.
type Gateway struct {
	Address Endpoint
	Key     [32]byte // Ed25519 public key
	// KeepAlive is after how many seconds of rest a connection is probed, MinKeepAlive to
	// MaxKeepAlive: sooner than what tracks connections on the way forgets it. 0 in a value
	// that no file has filled in: as towards servers.
	KeepAlive int
}

// Forward is a local address and the gateway's service behind it.
type Forward struct {
	Listen  Endpoint // Host "" means every address
	Service string
}

// Peers returns the public keys that the file names.
func (e *EdgeRelay) Peers() [][32]byte { return [][32]byte{e.Gateway.Key} }

// CloudRelay is a parsed cloud-relay.yaml: the gateway.
type CloudRelay struct {
	Box
	Listen   Endpoint
	Services []Service     // at least one; names are unique
	Clients  []RelayClient // at least one; names and keys are unique
}

// Service is a server behind the gateway.
type Service struct {
	Name string
	To   Endpoint
}

// RelayClient is one that the gateway serves.
type RelayClient struct {
	Name     string
	Key      [32]byte // Ed25519 public key
	Services []string // names that it may use; empty in the file means all, and is filled in
}

// Peers returns the public keys that the file names.
func (c *CloudRelay) Peers() [][32]byte {
	keys := make([][32]byte, len(c.Clients))
	for i, client := range c.Clients {
		keys[i] = client.Key
	}
	return keys
}

// ParseEdgeRelay reads the bytes of an edge-relay.yaml; see ParseCloud.
func ParseEdgeRelay(name string, data []byte) (*EdgeRelay, error) {
	e := &EdgeRelay{}
	d := &document{name: name, lines: map[string]int{}}
	if err := d.read(data, e.schema()); err != nil {
		return nil, err
	}
	return e, e.fill(d)
}

// ParseCloudRelay reads the bytes of a cloud-relay.yaml; see ParseCloud.
func ParseCloudRelay(name string, data []byte) (*CloudRelay, error) {
	c := &CloudRelay{}
	d := &document{name: name, lines: map[string]int{}}
	if err := d.read(data, c.schema()); err != nil {
		return nil, err
	}
	return c, c.fill(d)
}

// withoutHost is with for a program that has neither a virtual host nor links.
func (b *Box) withoutHost(own fields) fields {
	own = b.with(own)
	delete(own, "namespace")
	delete(own, "scheduler")
	return own
}

func (e *EdgeRelay) schema() setter {
	return object(e.Box.withoutHost(fields{
		"gateway": object(fields{
			"address": parsed(&e.Gateway.Address, parseRemote),
			"key":     parsed(&e.Gateway.Key, parseKey),

			"keep_alive_seconds": parsed(&e.Gateway.KeepAlive, ranged(MinKeepAlive, MaxKeepAlive, "")),
		}),
		"forward": sequence(&e.Forward, func(f *Forward) setter {
			return object(fields{"listen": parsed(&f.Listen, parseListen), "service": parsed(&f.Service, ParseName)})
		}),
	}))
}

func (c *CloudRelay) schema() setter {
	return object(c.Box.withoutHost(fields{
		"listen": parsed(&c.Listen, parseListen),
		"services": sequence(&c.Services, func(s *Service) setter {
			return object(fields{"name": parsed(&s.Name, ParseName), "to": parsed(&s.To, parseRemote)})
		}),
		"clients": sequence(&c.Clients, func(r *RelayClient) setter {
			return object(fields{"name": parsed(&r.Name, ParseName), "key": parsed(&r.Key, parseKey), "services": sequence(&r.Services, one(ParseName))})
		}),
	}))
}

// fillRelay is fill with the identity of the role.
func (b *Box) fillRelay(role string) {
	if b.Identity == "" {
		b.Identity = "/etc/hawser/" + role + ".key"
	}
	b.fill(role + "-relay")
}

func (e *EdgeRelay) fill(d *document) error {
	e.Box.fillRelay("edge")
	if e.Gateway.KeepAlive == 0 {
		e.Gateway.KeepAlive = DefaultKeepAlive
	}
	switch {
	case !d.has("gateway.address"):
		return d.fail("gateway.address", "missing: give the gateway's address, such as \"203.0.113.10:%d\"", DefaultRelayPort)
	case !d.has("gateway.key"):
		return d.fail("gateway.key", "missing: paste what `hawser-cloud pubkey` prints on the gateway")
	case len(e.Forward) == 0:
		return d.fail("forward", "missing: list at least one local address, such as {listen: \"127.0.0.1:8080\", service: web}")
	}
	for i, f := range e.Forward {
		path := fmt.Sprintf("forward[%d]", i)
		if !d.has(path + ".listen") {
			return d.fail(path+".listen", "missing: give the address where clients connect, such as \"127.0.0.1:8080\"")
		}
		if f.Service == "" {
			return d.fail(path+".service", "missing: name one of the gateway's services")
		}
		if err := e.apart(d, path+".listen", f.Listen); err != nil {
			return err
		}
		for j, other := range e.Forward[:i] {
			if other.Listen.same(f.Listen) { // the kernel would deal out clients between the two services
				return d.fail(path+".listen", "%s is already that of forward[%d]: give each its own", f.Listen, j)
			}
		}
	}
	return nil
}

func (c *CloudRelay) fill(d *document) error {
	c.Box.fillRelay("cloud")
	if !d.has("listen") {
		c.Listen = Endpoint{Port: DefaultRelayPort}
	}
	if err := c.apart(d, "listen", c.Listen); err != nil {
		return err
	}
	if len(c.Services) == 0 {
		return d.fail("services", "missing: list at least one server, such as {name: web, to: \"10.0.0.5:80\"}")
	}
	for i, s := range c.Services {
		path := fmt.Sprintf("services[%d]", i)
		switch {
		case s.Name == "":
			return d.fail(path+".name", "missing: give the service a name of its own, such as web")
		case !d.has(path + ".to"):
			return d.fail(path+".to", "missing: give the server's address, such as \"10.0.0.5:80\"")
		case slices.ContainsFunc(c.Services[:i], func(o Service) bool { return o.Name == s.Name }):
			return d.fail(path+".name", "%q is already the name of another service: give each its own", s.Name)
		}
	}
	if len(c.Clients) == 0 {
		return d.fail("clients", "missing: list at least one client, such as {name: shop-3, key: \"...\"}")
	}
	for i := range c.Clients {
		if err := c.checkClient(d, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *CloudRelay) checkClient(d *document, i int) error {
	path := fmt.Sprintf("clients[%d]", i)
	client := &c.Clients[i]
	switch {
	case client.Name == "":
		return d.fail(path+".name", "missing: give the client a name of its own, such as shop-3")
	case !d.has(path + ".key"):
		return d.fail(path+".key", "missing: paste what `hawser-edge pubkey` prints on that client")
	}
	for j, other := range c.Clients[:i] {
		if other.Name == client.Name {
			return d.fail(path+".name", "%q is already the name of clients[%d]: give each client its own", other.Name, j)
		}
		if other.Key == client.Key {
			return d.fail(path+".key", "is already the key of clients[%d]: each client has its own identity", j)
		}
	}
	for j, name := range client.Services {
		if !slices.ContainsFunc(c.Services, func(s Service) bool { return s.Name == name }) {
			return d.fail(fmt.Sprintf("%s.services[%d]", path, j), "%q is none of this file's services", name)
		}
	}
	if len(client.Services) == 0 {
		if d.has(path + ".services") { // who has struck the last one out did not mean all
			return d.fail(path+".services", "names none: list the services that this client may use, or leave the key out for all")
		}
		for _, s := range c.Services {
			client.Services = append(client.Services, s.Name)
		}
	}
	if len(client.Services) > MostServices {
		return d.fail(path+".services", "%d services: at most %d, list the ones that this client needs", len(client.Services), MostServices)
	}
	return nil
}
