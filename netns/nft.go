package netns

import (
	"encoding/binary"

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
