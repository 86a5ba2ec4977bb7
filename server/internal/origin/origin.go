// Package origin tells requests of this machine from those that only seem so.
package origin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Meant reports whether a request that came from this machine's own address was also meant for it by somebody here. It was not if a
// proxy hands it on, if the page of another site sends it, or if it names a host that is neither an address, nor localhost, nor
// bound, which may be empty: so would a browser that was told that a name of some other site is here. Somebody who follows a link on
// another site means to come, and that site does not get to see what there is.
func Meant(r *http.Request, bound string) bool {
	if handedOn(r.Header) || FromOtherSite(r) && !followed(r) {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") || bound != "" && strings.EqualFold(host, bound) {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && !addr.IsUnspecified() // browsers take 0.0.0.0 for this machine, without asking whose page it is
}

// FromOtherSite reports whether a browser says that the page of another site sends a request.
func FromOtherSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

// followed reports whether a browser follows a link in a tab of its own.
func followed(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// handedOn reports whether a request came through a proxy. A header counts also if it is empty: the caller may have sent that one,
// and the proxy have added its own.
func handedOn(h http.Header) bool {
	for name := range h {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip":
			return true
		}
		if strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}
