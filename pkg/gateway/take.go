package gateway

import (
	"reflect"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/config"
)

// Take takes over another configuration, if it differs from that of the run in clients alone,
// and says what it has taken over, "": nothing; it never fails. The connections of those whose entry is another
// one, or gone, end: who adds or removes a terminal does not want to reset the others'. It may
// be called from any goroutine, one at a time.
func (r *Far) Take(next *config.CloudRelay) (string, error) {
	f := r.running.Load()
	if f == nil || !takes(f.conf.Load(), next) {
		return "", nil
	}
	f.conf.Store(next)
	f.gate.Serve(f.clients(next.Clients))
	f.takenOver.Store(&admin.Taken{At: time.Now(), What: "clients"})
	return "clients", nil
}

// takes says whether two configurations differ in their clients alone.
func takes(was, next *config.CloudRelay) bool {
	same := *next
	same.Clients = was.Clients
	return reflect.DeepEqual(&same, was)
}
