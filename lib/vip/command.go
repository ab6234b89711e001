package vip

import "fmt"

// putCommand is what an operator would type to have an address as Put leaves it.
func putCommand(a Address, life int) string {
	if a.Prefix.Addr().Is6() {
		return fmt.Sprintf("ip -6 addr replace %s dev %s valid_lft %d preferred_lft 0 nodad", a.Prefix, a.Interface, life)
	}
	return fmt.Sprintf("ip addr replace %s dev %s valid_lft %d preferred_lft %d", a.Prefix, a.Interface, life, life)
}

func removeCommand(a Address) string {
	return fmt.Sprintf("ip addr del %s dev %s", a.Prefix, a.Interface)
}
