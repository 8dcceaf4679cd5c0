package netns

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// askTables sends a request to nf_tables.
func askTables(request, flags int) ([][]byte, error) {
	ask := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|request, flags)
	ask.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	return ask.Execute(unix.NETLINK_NETFILTER, 0)
}

// attributes are those of an answer, or nested in one of them.
func attributes(data []byte) map[int][]byte {
	found := map[int][]byte{}
	attrs, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		found[int(a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER))] = a.Value
	}
	return found
}

// number reads an attribute; ok is false where it is none.
func number(value []byte) (n uint32, ok bool) {
	if len(value) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(value), true
}

// nftHolds tells whether iptables-nft has a chain of ours, or of another hawser, in a
// family.
func nftHolds(family int) bool {
	answers, err := askTables(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
	return err == nil && slices.ContainsFunc(answers, func(m []byte) bool {
		return len(m) >= nl.SizeofNfgenmsg && int(m[0]) == netlinkFamily(family) &&
			bytes.HasPrefix(attributes(m[nl.SizeofNfgenmsg:])[unix.NFTA_CHAIN_NAME], []byte(chainPrefix))
	})
}

// rulesetGeneration changes whenever somebody changes rules of nf_tables; it is 0 where
// it is not known, or where rules are kept elsewhere.
func rulesetGeneration(walls []*firewall) uint32 {
	for _, f := range walls {
		if !f.nft {
			return 0
		}
	}
	answers, err := askTables(unix.NFT_MSG_GETGEN, 0)
	if err != nil || len(answers) == 0 || len(answers[0]) < nl.SizeofNfgenmsg {
		return 0
	}
	generation, _ := number(attributes(answers[0][nl.SizeofNfgenmsg:])[unix.NFTA_GEN_ID])
	return generation
}

// chainRules are the rules of a chain as nf_tables has them, "" for all of a table; none
// where there is no such chain.
func chainRules(family uint8, table, chain string) ([][]byte, error) {
	return askTable(unix.NFT_MSG_GETRULE, family, table, chain)
}

// askTable has nf_tables list what belongs to a table, or to a chain or a set of it where
// that is not "".
func askTable(request int, family uint8, table, part string) ([][]byte, error) {
	ask := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|request, unix.NLM_F_DUMP)
	ask.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	ask.AddData(nl.NewRtAttr(tableAttribute, nl.ZeroTerminated(table)))
	if part != "" {
		ask.AddData(nl.NewRtAttr(partAttribute, nl.ZeroTerminated(part)))
	}
	return ask.Execute(unix.NETLINK_NETFILTER, 0)
}

// Attributes of requests have the same numbers for rules, sets and elements of sets.
const (
	tableAttribute = unix.NFTA_RULE_TABLE
	partAttribute  = unix.NFTA_RULE_CHAIN
)

// standing tells whether chains and the rules that lead to them are there for certain. It
// takes a millisecond, where iptables takes a tenth of a second and more.
func standing(family int, steps []step) bool {
	led := map[string]int{} // rules that should lead from one chain to another
	for _, s := range steps {
		e := s.undo[0]
		rules, err := chainRules(uint8(netlinkFamily(family)), e.Table, e.Chain)
		if err != nil {
			return false
		}
		if e.Do == undoChain {
			if len(rules) < s.rules || s.rules == 0 {
				return false
			}
			continue
		}
		target := e.Rule[len(e.Rule)-1]
		way := e.Table + " " + e.Chain + " " + target
		led[way]++
		leads := func(rule []byte) bool { return bytes.Contains(rule, nl.ZeroTerminated(target)) }
		if there := len(rules) - len(slices.DeleteFunc(rules, leads)); there < led[way] {
			return false
		}
	}
	return true
}
