package scheduler

// Kinds name one policy of each family. The zero Kinds are the defaults.
type Kinds struct {
	Order OrderKind
	Data  DataKind
	Path  PathKind
}

// OrderKind names a connection order.
type OrderKind uint8

// Connection orders.
const (
	OrderDRR OrderKind = iota
	OrderRoundRobin
	OrderStrict
)

// String returns the name that stands in the configuration.
func (k OrderKind) String() string {
	return nameOf(uint8(k), "drr", "round-robin", "strict")
}

// DataKind names a data order.
type DataKind uint8

// Data orders.
const (
	DataOverdue DataKind = iota
	DataFIFO
)

// String returns the name that stands in the configuration.
func (k DataKind) String() string { return nameOf(uint8(k), "overdue", "fifo") }

// PathKind names a path choice.
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

// String returns the name that stands in the configuration.
func (k PathKind) String() string {
	return nameOf(uint8(k), "earliest", "minrtt", "weighted", "redundant", "blest", "ecf", "roundrobin")
}

func nameOf(i uint8, names ...string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return "invalid"
}
