package gateway

import (
	"reflect"
	"slices"

	"hawser/pkg/config"
)

// Take takes over another configuration, if it differs from that of the run in clients alone
// that come in addition, and says what it has taken over, "": nothing. Who adds a terminal does
// not want to reset the others' connections. It may be called from any goroutine, one at a time.
func (r *Far) Take(next *config.CloudRelay) string {
	f := r.running.Load()
	if f == nil || !adds(f.conf.Load(), next) {
		return ""
	}
	f.conf.Store(next)
	f.gate.Serve(f.clients(next.Clients))
	return "clients"
}

// adds says whether the next configuration is the former one with further clients. One that
// has lost what it was granted must lose its connections, too, which a new start sees to.
func adds(was, next *config.CloudRelay) bool {
	same := *next
	same.Clients = was.Clients
	if !reflect.DeepEqual(&same, was) {
		return false
	}
	for _, c := range was.Clients {
		there := func(other config.RelayClient) bool { return reflect.DeepEqual(c, other) }
		if !slices.ContainsFunc(next.Clients, there) {
			return false
		}
	}
	return true
}
