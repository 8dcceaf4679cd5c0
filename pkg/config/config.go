// Package config reads the two configuration files of hawser, edge.yaml and
// cloud.yaml. Their key names are a public contract.
//
// Reading is strict: an unknown key, a key given twice, a value of the wrong
// type or a missing required key is an error of one line that names the file,
// the line and the key, and says what to do:
//
//	edge.yaml:7: links[1].transport: "sctp" is not one of auto, tcp, quic
//
// The package works on bytes. It opens no file and looks at nothing on the
// host, so whether an interface or a key file exists is not its matter. It
// starts no goroutines.
package config

import (
	"net/netip"

	"hawser/pkg/unit"
)

// Defaults of keys that both files share. The default control socket is
// /run/hawser/edge.sock at the edge and /run/hawser/cloud.sock at the cloud,
// the default identity /etc/hawser/edge.key and /etc/hawser/cloud.key.
const (
	DefaultNamespace = "hawser"
	DefaultMemory    = 512 * unit.MiB
	DefaultPort      = 7443
)

// DefaultState is where an edge keeps what must survive a restart.
const DefaultState = "/var/lib/hawser/edge.state"

// MaxLinks and MaxLanes bound the links of an edge and the lanes of a link.
const (
	MaxLinks = 256
	MaxLanes = 8
)

// MinKeepAlive, DefaultKeepAlive and MaxKeepAlive are seconds for which a connection to a
// gateway carries nothing before it is probed.
const (
	MinKeepAlive     = 30
	DefaultKeepAlive = 90
	MaxKeepAlive     = 7200
)

// MinTrial, DefaultTrial and MaxTrial are seconds between trials of a link's other
// transport. A trial takes up to nine.
const (
	MinTrial     = 5
	DefaultTrial = 600
	MaxTrial     = 86400
)

// MinQuota is the smallest quota of a link.
const MinQuota unit.Bytes = 1_000_000

// MinMemory is the least with which an agent can work.
const MinMemory = 64 * unit.MiB

// MaxWorkers is the largest number of workers: one PACKET_FANOUT group holds
// no more members.
const MaxWorkers = 256

// MaxFile is the largest configuration file that is read, in bytes.
const MaxFile = 256 << 10

// Box is what the files of both roles say about the machine itself.
type Box struct {
	Identity  string      // path of the private key; absolute
	Namespace string      // name of the network namespace, as `ip netns` shows it
	Control   string      // path of the control socket; absolute
	Metrics   Endpoint    // where Prometheus finds metrics; the zero Endpoint: nowhere
	Workers   int         // relay workers; 0 means one per CPU
	Memory    unit.Bytes  // that the program may take; at least MinMemory
	Compress  Compression // zero means CompressAuto
	Card      Card
	Scheduler Scheduler
}

// Card says how records are encrypted and decrypted.
type Card struct {
	Kind    CardKind // zero means CardAuto
	Workers int      // threads of its own; 0 means one per relay worker
	Queue   int      // jobs of one relay worker inside at most
	CPUs    []int    // that its threads are bound to in turn; empty: none
}

// DefaultQueue is the default of Card.Queue; MaxCardWorkers, MaxQueue and
// MaxCPU are the largest values that Card may have.
const (
	DefaultQueue   = 64
	MaxCardWorkers = 64
	MaxQueue       = 1024
	MaxCPU         = 1023
)

// Settings returns the settings that both roles share.
func (b *Box) Settings() *Box { return b }

// Edge is a parsed edge.yaml.
type Edge struct {
	Box
	Name  string // what status calls this box; "" means the host's name
	Cloud Peer   // the cloud that all links lead to
	Links []Link // at least one; names are unique
	Steer Steer
	State string // file for what must survive a restart
	Hints string // file in which other programs say what they know of links; "" means none

	Handshake Handshake // of connections whose policy says nothing; zero means HandshakeAuto
	Limits    Limits
	Users     Users
	Policies  []Policy // the first that matches counts
}

// Peers returns the public keys that the file names.
func (e *Edge) Peers() [][32]byte { return [][32]byte{e.Cloud.Key} }

// Peer names the other end of the links.
type Peer struct {
	Key [32]byte // Ed25519 public key
}

// Link is one uplink of the edge.
type Link struct {
	Name      string     // unique within the file
	Interface string     // network interface that the link is bound to
	Gateway   netip.Addr // next hop; invalid means that the host's routes decide
	Cloud     Endpoint   // where the cloud is reached over this link
	Transport Transport  // zero means TransportAuto
	Tier      Tier       // zero means TierPrimary
	Weight    int        // 1 to MaxWeight, for path choice weighted
	Lanes     int        // TCP connections at once, 1 to MaxLanes
	Quota     unit.Bytes // per month, both directions; 0 means none
	QuotaDay  int        // of the month on which it begins, 1 to 31; 0 without a quota
	// TrialSeconds is how often TransportAuto tries the other transport, about,
	// MinTrial to MaxTrial; 0 with another transport.
	TrialSeconds int
}

// Steer says which connections go through the tunnel. The zero value steers
// none and is refused in a file.
type Steer struct {
	Interfaces []string       // where clients are
	Local      bool           // also connections that this host opens itself
	Exclude    []netip.Prefix // destinations left alone
	Ports      []PortRange    // destination ports; empty means all
	Intercept  Intercept      // zero means InterceptHub
	// FailOpen lets new connections go around the tunnel while it is down; nil:
	// where the host forwards for its clients anyway.
	FailOpen *bool
}

// Cloud is a parsed cloud.yaml.
type Cloud struct {
	Box
	Listen Endpoint // TCP and UDP; Host "" means every address, IPv4 and IPv6
	Edges  []Client // at least one; names and keys are unique
	Egress Egress
}

// Peers returns the public keys that the file names.
func (c *Cloud) Peers() [][32]byte {
	keys := make([][32]byte, len(c.Edges))
	for i, edge := range c.Edges {
		keys[i] = edge.Key
	}
	return keys
}

// Client is one edge that the cloud serves.
type Client struct {
	Name string
	Key  [32]byte // Ed25519 public key

	Limit    unit.BitRate // of all that goes to the edge; 0: none
	Policies []Policy     // the first that matches replaces what the edge says
}

// Transport says what carries a link.
type Transport uint8

// Transports of a link.
const (
	TransportAuto Transport = iota // a race of TCP and QUIC; the better one is kept
	TransportTCP
	TransportQUIC
)

// String returns the word that stands in the file.
func (t Transport) String() string { return word(transports[:], uint8(t)) }

// Compression says whether payload is compressed before it is sealed.
type Compression uint8

// Compression modes.
const (
	CompressAuto Compression = iota // when a sample of the payload shows that it pays
	CompressOff
)

// String returns the word that stands in the file.
func (c Compression) String() string { return word(compressions[:], uint8(c)) }

// CardKind says what encrypts and decrypts.
type CardKind uint8

// Kinds of card.
const (
	CardAuto   CardKind = iota // measured at the start
	CardInline                 // the relay workers themselves
	CardPool                   // threads of its own
	CardKernel                 // the kernel's crypto API
)

// String returns the word that stands in the file.
func (k CardKind) String() string { return word(cardKinds[:], uint8(k)) }

// EgressMode says how the cloud dials servers.
type EgressMode uint8

// Egress modes.
const (
	EgressHub    EgressMode = iota // user-space TCP through the hub, masqueraded by the host
	EgressSocket                   // kernel sockets of the cloud host
)

// String returns the word that stands in the file.
func (m EgressMode) String() string { return word(egressModes[:], uint8(m)) }

// Intercept says how an edge takes the connections that it steers.
type Intercept uint8

// Ways to take connections.
const (
	InterceptHub    Intercept = iota // user-space TCP behind a hub
	InterceptTPROXY                  // transparent kernel sockets
)

// String returns the word that stands in the file.
func (i Intercept) String() string { return word(intercepts[:], uint8(i)) }

// The words of each enumeration, in the order of its constants.
var (
	transports   = [...]string{"auto", "tcp", "quic"}
	compressions = [...]string{"auto", "off"}
	egressModes  = [...]string{"hub", "socket"}
	cardKinds    = [...]string{"auto", "inline", "pool", "kernel"}
	intercepts   = [...]string{"hub", "tproxy"}
)

func word(words []string, i uint8) string {
	if int(i) < len(words) {
		return words[i]
	}
	return "invalid"
}
