package config

import "fmt"

// ParseCloud reads the bytes of a cloud.yaml. The name stands in errors, which
// are one line each; the first mistake found is returned.
func ParseCloud(name string, data []byte) (*Cloud, error) {
	c := &Cloud{}
	d := &document{name: name, lines: map[string]int{}}
	if err := d.read(data, c.schema()); err != nil {
		return nil, err
	}
	if err := c.fill(d); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cloud) schema() setter {
	return object(c.Box.with(fields{
		"listen": parsed(&c.Listen, parseListen),
		"edges":  sequence(&c.Edges, (*Client).schema),
		"egress": object(fields{
			"mode":   enum(&c.Egress.Mode, egressModes[:]),
			"deny":   networkSets(&c.Egress.Deny),
			"allow":  networkSets(&c.Egress.Allow),
			"limits": c.Egress.Limits.schema(),
		}),
	}))
}

func (c *Client) schema() setter {
	return object(fields{
		"name": parsed(&c.Name, ParseName),
		"key":  parsed(&c.Key, parseKey),

		"limit":    parsed(&c.Limit, parseRate),
		"policies": sequence(&c.Policies, (*Policy).override),
	})
}

// fill sets the defaults of what the file leaves out, then checks what no
// single value shows.
func (c *Cloud) fill(d *document) error {
	c.Box.fill("cloud")
	c.Egress.Limits.fill(d)
	if !d.has("listen") {
		c.Listen = Endpoint{Port: DefaultPort}
	}
	if err := c.apart(d, "listen", c.Listen); err != nil {
		return err
	}
	if !d.has("egress.deny") {
		for _, word := range defaultDeny {
			c.Egress.Deny = append(c.Egress.Deny, networks[word]...)
		}
	}
	if len(c.Edges) == 0 {
		return d.fail("edges", "missing: list at least one edge, such as {name: train-7, key: \"...\"}")
	}
	for i := range c.Edges {
		if err := c.checkEdge(d, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cloud) checkEdge(d *document, i int) error {
	path := fmt.Sprintf("edges[%d]", i)
	edge := &c.Edges[i]
	switch {
	case edge.Name == "":
		return d.fail(path+".name", "missing: give the edge a name of its own, such as train-7")
	case !d.has(path + ".key"):
		return d.fail(path+".key", "missing: paste what `hawser-edge pubkey` prints on that edge")
	}
	if err := fillPolicies(d, path+".policies", edge.Policies); err != nil {
		return err
	}
	for j, other := range c.Edges[:i] {
		if other.Name == edge.Name {
			return d.fail(path+".name", "%q is already the name of edges[%d]: give each edge its own", edge.Name, j)
		}
		if other.Key == edge.Key {
			return d.fail(path+".key", "is already the key of edges[%d]: each edge has its own identity", j)
		}
	}
	return nil
}
