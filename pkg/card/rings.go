package card

import (
	"sync"

	"hawser/pkg/stream"
)

// Rings finds the Keyring of a session for all workers of an agent. The agent
// forgets a session's ring when the session has ended: a ring that were made
// anew within a session would start again at epoch 0.
type Rings struct {
	role Role

	mu    sync.Mutex
	rings map[stream.Tunnel]*Keyring
}

// NewRings returns an empty Rings for an agent in the given role.
func NewRings(role Role) *Rings {
	return &Rings{role: role, rings: map[stream.Tunnel]*Keyring{}}
}

// ender is a session that says when it has ended.
type ender interface{ Ended() <-chan struct{} }

// Get returns the session's Keyring and derives it at the first call. Once the session
// has ended it keeps no ring: what came too late, as a flow that the peer had just opened,
// would have one, and with it the session, kept for good.
func (r *Rings) Get(t stream.Tunnel) (*Keyring, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.rings[t]; k != nil {
		return k, nil
	}
	k, err := NewKeyring(t.Secret(), r.role)
	if err != nil {
		return nil, err
	}
	if !ended(t) {
		r.rings[t] = k
	}
	return k, nil
}

func ended(t stream.Tunnel) bool {
	e, ok := t.(ender)
	if !ok {
		return false
	}
	select {
	case <-e.Ended():
		return true
	default:
		return false
	}
}

// Forget drops the Keyring of a session that has ended.
func (r *Rings) Forget(t stream.Tunnel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rings, t)
}
