package split

import (
	"reflect"
	"sync"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// tables finds netstack's tables of connections, one for each version of IP. They
// are maps, and keep the memory of the most that they ever held: 130 bytes for each of
// the largest crowd. Like the trimmer it looks them up by name, and a netstack that
// has none of that name keeps what it has.
type tables struct {
	demux     uintptr      // in the stack
	byProto   uintptr      // in the demultiplexer: a map
	protoType reflect.Type // its type; the values are pointers to structs
	mu        uintptr      // in one of those
	muType    reflect.Type
	conns     uintptr // the same: a map
	connsType reflect.Type
}

const (
	// leastTable is how many connections there must have been for a table to be
	// worth a copy, and tablePart the part of them that may be left for that: to
	// copy a large one would keep its connections waiting.
	leastTable = 1 << 10
	tablePart  = 8
)

// newTables returns nil if netstack is not as expected.
func newTables() *tables {
	t, l := &tables{}, lookup{}
	t.protoType = l.in(l.behind(reflect.TypeFor[stack.Stack](), &t.demux, "demux"), &t.byProto, "protocol")
	if l.failed || t.protoType.Kind() != reflect.Map || t.protoType.Elem().Kind() != reflect.Pointer {
		return nil
	}
	one := t.protoType.Elem().Elem()
	t.muType, t.connsType = l.in(one, &t.mu, "mu"), l.in(one, &t.conns, "endpoints")
	if l.failed || t.connsType.Kind() != reflect.Map || !reflect.PointerTo(t.muType).Implements(reflect.TypeFor[sync.Locker]()) {
		return nil
	}
	return t
}

// shrink has ns keep no more than it needs after `most` connections. False means that
// it needs much of it still: connections outlive their flows by seconds.
func (t *tables) shrink(ns *stack.Stack, most int) bool {
	done := true
	demux := follow(unsafe.Pointer(ns), t.demux)
	if demux == nil {
		return done
	}
	protos := reflect.NewAt(t.protoType, unsafe.Add(demux, t.byProto)).Elem() // never changed
	for it := protos.MapRange(); it.Next(); {
		one := it.Value().UnsafePointer()
		mu := reflect.NewAt(t.muType, unsafe.Add(one, t.mu)).Interface().(sync.Locker)
		mu.Lock()
		if conns := reflect.NewAt(t.connsType, unsafe.Add(one, t.conns)).Elem(); conns.Len() <= most/tablePart {
			conns.Set(copied(conns))
		} else {
			done = false
		}
		mu.Unlock()
	}
	return done
}

// copied is a copy of a map that is as large as what is in it.
func copied(m reflect.Value) reflect.Value {
	small := reflect.MakeMapWithSize(m.Type(), m.Len())
	for it := m.MapRange(); it.Next(); {
		small.SetMapIndex(it.Key(), it.Value())
	}
	return small
}
