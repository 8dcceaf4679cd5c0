package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"hawser/pkg/config"
	"hawser/pkg/names"
	"hawser/pkg/quiet"
	"hawser/pkg/sealed"
)

// lookup is net.Resolver.LookupNetIP.
type lookup = names.Ask

// Times of look-ups.
const (
	lookupTime  = 5 * time.Second
	lookupEvery = 30 * time.Second
	lookupPause = time.Second // between two of which a connect that failed asked for the second
)

// service is a server of the gateway.
type service struct {
	config.Service
	field  string // in the file
	server *sealed.Server
	look   lookup
	log    *slog.Logger
	news   quiet.News // of what follow finds
	lost   bool       // the name was not found at the last look
}

func newService(i int, s config.Service, look lookup, log *slog.Logger) *service {
	one := &service{Service: s, field: field(i), look: look, log: log}
	if at, ok := s.To.AddrPort(); ok {
		one.server = sealed.NewServer(at)
	} else {
		one.server = sealed.NewServer()
	}
	return one
}

// field names what the file says of the service of that index.
func field(i int) string { return fmt.Sprintf("services[%d].to", i) }

// named says whether the file gives a name in place of an address.
func (s *service) named() bool { return !s.To.Addr.IsValid() }

// find looks the name up. When that fails, the addresses known before stay.
func (s *service) find(ctx context.Context) error {
	found, err := find(ctx, s.look, s.field, s.To)
	if err == nil {
		s.server.Set(found)
	}
	return err
}

// follow is find, and tells the log what is new: not each of several addresses each time that
// it has its turn, as while none of them answers.
func (s *service) follow(ctx context.Context) {
	err := s.find(ctx)
	at, _ := s.server.Addr()
	if ctx.Err() != nil {
		return
	}
	if s.lost != (err != nil) {
		s.lost = err != nil
		s.news.Forget()
	}
	if !s.news.Fresh(fmt.Sprintf("%v %v", at, err), time.Now()) {
		return
	}
	switch {
	case err == nil:
		s.log.Info("a service has its address", "service", s.Name, "name", s.To.Host, "address", at)
	case at.IsValid():
		s.log.Warn("a service keeps its address: its name is not found", "service", s.Name, "address", at, "error", err)
	default:
		s.log.Warn("a service has no address: its connections are reset until its name is found", "service", s.Name, "error", err)
	}
}

// keep follows the name until ctx ends: now and then, and soon after the
// server did not answer.
func (s *service) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookupEvery):
		case <-s.server.Failing():
			s.follow(ctx)
			select {
			case <-ctx.Done():
				return
			case <-time.After(lookupPause):
			}
			continue
		}
		s.follow(ctx)
	}
}

// find looks up the addresses of an endpoint that gives a name.
func find(ctx context.Context, look lookup, field string, e config.Endpoint) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, err := look(ctx, "ip", e.Host)
	if err == nil && len(found) == 0 {
		err = errors.New("the name has none")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: cannot find the address of %s: %w", field, e.Host, err)
	}
	out := make([]netip.AddrPort, len(found))
	for i, a := range found {
		out[i] = netip.AddrPortFrom(a.Unmap(), e.Port)
	}
	return out, nil
}

// local is where to listen.
func local(e config.Endpoint) netip.AddrPort {
	if at, ok := e.AddrPort(); ok {
		return at
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), e.Port)
}
