package split

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"hawser/pkg/splice"
)

// Options describe one worker's stack. Zero fields have defaults where the
// comment gives one.
type Options struct {
	// FD is a packet socket (SOCK_RAW) bound to hub1 with PACKET_VNET_HDR on,
	// which receives TCP frames and, if it can, ICMP and ICMPv6 errors. The
	// stack owns it from a successful New on.
	FD int
	// HubMAC is hub1's address, HostMAC hub0's.
	HubMAC, HostMAC net.HardwareAddr
	// Hub4 and Hub6 are the addresses Dial connects from; the host's routes
	// must bring what goes to them to this socket. A family without one is
	// accepted from but not dialled.
	Hub4, Hub6 netip.Addr
	// MTU is the hub's, in bytes; 1500.
	MTU int

	// Worker is this stack's index, Workers how many share the hub; 0 of 1.
	// Dialled connections have a local port with port % Workers == Worker.
	Worker, Workers int

	// MinRTO is the least retransmission timeout; 200 ms. Less recovers
	// faster from loss on a LAN, and retransmits in vain where round trips
	// vary by more.
	MinRTO time.Duration
	// Congestion is "cubic" or "reno". The default is cubic, and reno behind a
	// guard: on the short round trips of a LAN netstack's cubic gives up its slow
	// start too early and grows slowly.
	Congestion string
	// DialTimeout bounds the time a server may take to answer; 10 s.
	DialTimeout time.Duration
	// KeepAlive is the idle time after which a silent client is probed, then every
	// quarter of it, and a server after half of it; either is given up after twice as
	// long. 10 min; negative turns probes off.
	KeepAlive time.Duration
	// Buffer is what a connection may hold per direction before its size has
	// been tuned, MaxBuffer what it may grow to; bytes, 128 KB and 4 MB. The
	// memory is only used while data waits in it.
	Buffer, MaxBuffer int
	// MaxGrowth bounds what the receive buffers of all connections grow by
	// together, beyond Buffer each; bytes, 8 MB. Those that come last stay small.
	// One more may go beyond it, by up to MaxBuffer.
	MaxGrowth int
	// Direct says of a new connection that it goes around netstack: it is
	// spliced to the server by the host's own route, from Hub4 or Hub6. It is
	// called by the receive loop and must not block. nil: none does.
	Direct func(client, server netip.AddrPort) bool
	// Shunt carries what it can of spliced connections in the kernel; nil: the
	// stack carries all of them.
	Shunt splice.Shunt
	// MaxSpliced bounds the spliced connections; 65536.
	MaxSpliced int
	// MaxHandshakes bounds the passive handshakes under way; 1024. More SYNs
	// are ignored, and come again.
	MaxHandshakes int

	// Attend and Settle are called by the receive loop around a batch of few
	// frames, holding nothing: what the connections report between them the owner
	// may leave to Settle to look at. nil: nobody does. Both or none are given.
	Attend, Settle func()

	// Guard makes clients' handshakes; nil leaves them to netstack, which
	// keeps state for every SYN. Without accept it is not looked at.
	Guard *GuardOptions
}

// withDefaults returns o with every default filled in.
func (o Options) withDefaults() Options {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&o.MTU, 1500)
	set(&o.Workers, 1)
	set(&o.Buffer, 128<<10)
	set(&o.MaxBuffer, 4<<20)
	set(&o.MaxGrowth, 8<<20)
	set(&o.MaxHandshakes, 1024)
	set(&o.MaxSpliced, splice.DefaultLimit)
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&o.MinRTO, 200 * time.Millisecond}, {&o.DialTimeout, 10 * time.Second}, {&o.KeepAlive, 10 * time.Minute}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	if o.Congestion == "" {
		o.Congestion = "cubic"
		if o.Guard != nil {
			o.Congestion = "reno"
		}
	}
	return o
}

// check returns an error that names the first field that makes no sense.
func (o Options) check() error {
	switch {
	case o.FD < 0:
		return errors.New("split: FD: no packet socket given")
	case len(o.HubMAC) != 6 || len(o.HostMAC) != 6:
		return errors.New("split: HubMAC, HostMAC: want 6 bytes each")
	case o.MTU < 1280 || o.MTU > 65535:
		return fmt.Errorf("split: MTU: %d, want 1280 to 65535", o.MTU)
	case o.Workers < 1 || o.Worker < 0 || o.Worker >= o.Workers || o.Workers > 1024:
		return fmt.Errorf("split: Worker %d of %d: want 0 <= Worker < Workers <= 1024", o.Worker, o.Workers)
	case o.MinRTO < time.Millisecond || o.MinRTO > time.Minute:
		return fmt.Errorf("split: MinRTO: %v, want 1ms to 1m", o.MinRTO)
	case o.Congestion != "cubic" && o.Congestion != "reno":
		return fmt.Errorf("split: Congestion: %q, want cubic or reno", o.Congestion)
	case o.DialTimeout < 0:
		return fmt.Errorf("split: DialTimeout: %v is negative", o.DialTimeout)
	case o.Buffer < 4<<10 || o.MaxBuffer < o.Buffer:
		return fmt.Errorf("split: Buffer %d, MaxBuffer %d: want 4096 <= Buffer <= MaxBuffer", o.Buffer, o.MaxBuffer)
	case o.MaxGrowth < 0:
		return fmt.Errorf("split: MaxGrowth: %d is negative", o.MaxGrowth)
	case o.MaxSpliced < 1 || o.MaxSpliced > 1<<20:
		return fmt.Errorf("split: MaxSpliced: %d, want 1 to %d", o.MaxSpliced, 1<<20)
	case o.MaxHandshakes < 1:
		return fmt.Errorf("split: MaxHandshakes: %d, want at least 1", o.MaxHandshakes)
	}
	if o.Hub4.IsValid() && !o.Hub4.Is4() {
		return fmt.Errorf("split: Hub4: %v is not IPv4", o.Hub4)
	}
	if o.Hub6.IsValid() && (!o.Hub6.Is6() || o.Hub6.Is4In6()) {
		return fmt.Errorf("split: Hub6: %v is not IPv6", o.Hub6)
	}
	return nil
}
