package splice

// Door bounds how many flows a client has; the address is as As16 gives it. A
// flow is pending until its server has answered, then it is open until both
// ends have closed it, or it is forgotten.
type Door interface {
	// Admit asks for a pending flow. After true, Connected or Refused follows
	// once.
	Admit(client [16]byte) bool
	// Connected turns a pending flow into an open one; Closed follows once.
	Connected(client [16]byte)
	// Refused notes that a pending flow is over, Closed that an open one is.
	Refused(client [16]byte)
	Closed(client [16]byte)
}

// knock asks the door for a client's flow.
func (t *Table) knock(client [16]byte) bool { return t.cfg.Door == nil || t.cfg.Door.Admit(client) }

// answerDoor tells the door that a flow's server is there.
func (t *Table) answerDoor(f *flow) {
	if t.cfg.Door != nil && f.has(pendingBit) {
		f.bits = f.bits&^pendingBit | openBit
		t.cfg.Door.Connected(f.clientAddr)
	}
}

// leaveDoor tells the door that a flow is over, if it was not told before.
func (t *Table) leaveDoor(f *flow) {
	switch {
	case t.cfg.Door == nil:
	case f.has(pendingBit):
		t.cfg.Door.Refused(f.clientAddr)
	case f.has(openBit):
		t.cfg.Door.Closed(f.clientAddr)
	}
	f.bits &^= pendingBit | openBit
}
