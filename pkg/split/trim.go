package split

import (
	"reflect"
	"sync/atomic"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// trimmer gives back memory of netstack's endpoints that they never use, or not soon: more
// than half a kilobyte each. As soon as an endpoint stands it takes
//   - the free list for nodes of the tree of selective acknowledgements: all endpoints then
//     share one;
//   - the functions of three timers that are not used here: RACK's two, and that for segments
//     that are held back;
//   - the handshake's state, of endpoints that have dialled (of accepted ones netstack
//     forgets it itself).
//
// At rest it takes the room in the table of sent segments, which is empty then. netstack
// offers no way to do without these, so they are looked up by name; where a later netstack
// has none of that name, nothing is taken.
type trimmer struct {
	hand     uintptr    // in the endpoint: its handshake
	sender   uintptr    // in the endpoint
	board    uintptr    // the scoreboard
	ranges   uintptr    // in the scoreboard: its tree
	context  uintptr    // in the tree
	list     uintptr    // in the tree's context: its free list
	nodes    uintptr    // in the free list: a slice
	timers   [3]uintptr // in the sender: what they call
	sent     uintptr    // in the sender: a map
	sentType reflect.Type
	never    uintptr // the function

	shared unsafe.Pointer // the free list of all trees, which keeps no nodes; has a lock of its own
}

// newTrimmer returns nil if netstack is not as expected.
func newTrimmer() *trimmer {
	t := &trimmer{never: reflect.ValueOf(never).Pointer()}
	l := lookup{}
	end := reflect.TypeFor[tcp.Endpoint]()
	l.behind(end, &t.hand, "h")
	snd := l.behind(end, &t.sender, "snd")
	for i, name := range []string{"reorderTimer", "probeTimer", "corkTimer"} {
		if f := l.in(snd, &t.timers[i], name, "callback"); f != nil && f != reflect.TypeFor[func()]() {
			l.failed = true
		}
	}
	t.sentType = l.in(snd, &t.sent, "writeList", "set")
	tree := l.behind(l.behind(end, &t.board, "scoreboard"), &t.ranges, "ranges")
	list := l.behind(l.behind(tree, &t.context, "cow"), &t.list, "freelist")
	nodes := l.in(list, &t.nodes, "freelist")
	if l.failed || t.sentType.Kind() != reflect.Map || nodes.Kind() != reflect.Slice {
		return nil
	}
	return t
}

// lookup finds where fields are.
type lookup struct{ failed bool }

// in notes at which offset in a struct the field is that is reached by names, and
// returns its type.
func (l *lookup) in(t reflect.Type, at *uintptr, names ...string) reflect.Type {
	for _, name := range names {
		if t == nil || t.Kind() != reflect.Struct {
			l.failed = true
			return nil
		}
		f, ok := t.FieldByName(name)
		if !ok || len(f.Index) != 1 {
			l.failed = true
			return nil
		}
		*at += f.Offset
		t = f.Type
	}
	return t
}

// behind is in for a pointer; it returns the type of what that points to.
func (l *lookup) behind(t reflect.Type, at *uintptr, name string) reflect.Type {
	p := l.in(t, at, name)
	if p == nil || p.Kind() != reflect.Pointer {
		l.failed = true
		return nil
	}
	return p.Elem()
}

// never and rested are what timers call that are never started.
func never()  {}
func rested() {}

// prune takes what e never uses, once it is connected: netstack looks at the handshake
// only while that goes on, and when it has failed. It guards all of it by the endpoint's
// lock.
func (t *trimmer) prune(ep tcpip.Endpoint) {
	e, ok := ep.(*tcp.Endpoint)
	if t == nil || !ok {
		return
	}
	e.LockUser()
	defer e.UnlockUser()
	snd := follow(unsafe.Pointer(e), t.sender)
	context := follow(follow(follow(unsafe.Pointer(e), t.board), t.ranges), t.context)
	list := follow(context, t.list)
	if snd == nil || list == nil {
		return // it is not
	}
	*(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(e), t.hand)) = nil
	*(*unsafe.Pointer)(unsafe.Add(context, t.list)) = t.share(list)
	for _, at := range t.timers {
		*(*func())(unsafe.Add(snd, at)) = never
	}
}

// share returns the free list that all trees have: the first one that was seen, without room.
func (t *trimmer) share(list unsafe.Pointer) unsafe.Pointer {
	if shared := atomic.LoadPointer(&t.shared); shared != nil {
		return shared
	}
	*(*[]unsafe.Pointer)(unsafe.Add(list, t.nodes)) = nil // it keeps none without room
	atomic.CompareAndSwapPointer(&t.shared, nil, list)
	return atomic.LoadPointer(&t.shared)
}

// rest takes the table of what is sent if it is empty; once, as to see whether there
// is room in it would ask for more than its name.
func (t *trimmer) rest(e *tcp.Endpoint) {
	e.LockUser()
	defer e.UnlockUser()
	snd := follow(unsafe.Pointer(e), t.sender)
	if snd == nil {
		return
	}
	mark := (*func())(unsafe.Add(snd, t.timers[0]))
	set := unsafe.Add(snd, t.sent)
	if reflect.ValueOf(*mark).Pointer() != t.never || reflect.NewAt(t.sentType, set).Elem().Len() > 0 {
		return
	}
	*(*unsafe.Pointer)(set) = reflect.MakeMap(t.sentType).UnsafePointer()
	*mark = rested
}

// follow returns the pointer at an offset from p.
func follow(p unsafe.Pointer, offset uintptr) unsafe.Pointer {
	if p == nil {
		return nil
	}
	return *(*unsafe.Pointer)(unsafe.Add(p, offset))
}

// Trim takes memory from connections at rest that they do not use then. From netstack's
// tables, and from what makes handshakes and sends, it takes what a crowd that has left has
// made them grow by. It takes about a microsecond for each connection, and may be called on
// any goroutine, but not by two at a time.
func (s *Stack) Trim() {
	ns := s.net.Load()
	if ns == nil {
		return
	}
	s.count.orphans.Add(s.orphans.look(s.growth.most.Load(), s.now())) // keeps none that has ended
	if s.trimmer != nil {
		for _, ep := range ns.RegisteredEndpoints() {
			if e, ok := ep.(*tcp.Endpoint); ok {
				s.trimmer.rest(e)
			}
		}
	}
	most, now := s.growth.peak()
	if most < leastTable || now > most/tablePart {
		return
	}
	s.porters.thin()
	s.out.rest()
	if s.tables == nil || s.tables.shrink(ns, most) {
		s.growth.crowd.CompareAndSwap(int64(most), int64(now))
	}
}
