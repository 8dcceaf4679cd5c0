package config

// Scheduler names the policies by which an agent sends; see package scheduler.
type Scheduler struct {
	Order OrderKind // which flow goes next; zero means OrderDRR
	Data  DataKind  // which of its bytes; zero means DataOverdue
	Path  PathKind  // on which link; zero means PathEarliest
}

// OrderKind is a connection order.
type OrderKind uint8

// Connection orders.
const (
	OrderDRR OrderKind = iota
	OrderRoundRobin
	OrderStrict
)

// String returns the word that stands in the file.
func (k OrderKind) String() string { return word(orders[:], uint8(k)) }

// DataKind is a data order.
type DataKind uint8

// Data orders.
const (
	DataOverdue DataKind = iota
	DataFIFO
)

// String returns the word that stands in the file.
func (k DataKind) String() string { return word(dataOrders[:], uint8(k)) }

// PathKind is a path choice.
type PathKind uint8

// Path choices.
const (
	PathEarliest PathKind = iota
	PathMinRTT
	PathWeighted
	PathRedundant
	PathBLEST
	PathECF
	PathRoundRobin
)

// String returns the word that stands in the file.
func (k PathKind) String() string { return word(paths[:], uint8(k)) }

// Tier is what a link costs to use.
type Tier uint8

// Tiers of links.
const (
	TierPrimary   Tier = iota // always used
	TierSecondary             // when the primary ones are full or too late
	TierStandby               // when the others are down or too late
)

// String returns the word that stands in the file.
func (t Tier) String() string { return word(tiers[:], uint8(t)) }

// Users says how long the prefix of a client's address is that makes a user.
type Users struct {
	IPv4 int // 1 to 32; 0 means 32
	IPv6 int // 1 to 128; 0 means 128
}

var (
	orders     = [...]string{"drr", "round-robin", "strict"}
	dataOrders = [...]string{"overdue", "fifo"}
	tiers      = [...]string{"primary", "secondary", "standby"}
	paths      = [...]string{"earliest", "minrtt", "weighted", "redundant", "blest", "ecf", "roundrobin"}
)

func (s *Scheduler) schema() setter {
	return object(fields{
		"order": enum(&s.Order, orders[:]),
		"data":  enum(&s.Data, dataOrders[:]),
		"path":  enum(&s.Path, paths[:]),
	})
}

func (u *Users) schema() setter {
	return object(fields{
		"ipv4": parsed(&u.IPv4, ranged(1, 32, ", the bits of an IPv4 address")),
		"ipv6": parsed(&u.IPv6, ranged(1, 128, ", the bits of an IPv6 address")),
	})
}
