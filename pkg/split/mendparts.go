package split

import (
	"hawser/pkg/guard"
	"hawser/pkg/places"
)

// mendPart is what a client has of the mender: flows, and bytes that netstack takes for
// acknowledged and it does not. One that acknowledges beyond gaps and never closes them, over
// a few connections, must not have what the losses of others need.
type mendPart struct{ flows, debt int }

// has changes what a client has. The caller holds mu.
func (m *mender) has(client *[16]byte, flows, debt int) {
	p := m.parts[*client]
	if p.flows, p.debt = p.flows+flows, p.debt+debt; p == (mendPart{}) {
		delete(m.parts, *client)
		return
	}
	if m.parts == nil {
		m.parts = map[[16]byte]mendPart{}
	}
	m.parts[*client] = p
}

// room says whether a client may have one more flow mended. The caller holds mu.
func (m *mender) room(client *[16]byte) bool {
	return places.Fair(m.parts[*client].flows, mendFlows-len(m.flows))
}

// credit is what may be owed to a flow's client: so much more that the client has no more
// than its fair part of all. The caller holds mu.
func (m *mender) credit(ends *guard.Ends, f *mended) int {
	free, own := mendBudget-m.debt, m.parts[ends.Client].debt
	more := (places.FairPart*free - own) / (places.FairPart + 1)
	return min(mendCredit, f.debt+max(more, 0))
}
