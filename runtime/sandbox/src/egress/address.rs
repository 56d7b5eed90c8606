//! Which addresses a guest may never reach by accident: the judgement on one resolved address.
//!
//! It knows address ranges and nothing of names or grants. Whatever carries an IPv4 address inside an IPv6 one is
//! judged by the inner address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Why an address is not a public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`, `fc00::/7` (AWS and GCP metadata over IPv6 live there).
    Private,
    /// `169.254.0.0/16` (cloud metadata lives there), `fe80::/10`.
    LinkLocal,
    /// `100.64.0.0/10`, shared by carriers and by overlay networks.
    CarrierNat,
    /// A metadata service on an address that is public otherwise.
    Metadata,
    /// `0.0.0.0/8`, `::`, which many systems route to themselves.
    Unspecified,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// Documentation, benchmarks, protocol assignments, broadcast and the rest of the reserved ranges.
    Reserved,
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::CarrierNat => "carrier NAT",
            Self::Metadata => "metadata service",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        })
    }
}

/// The class of an address that is not public; none for a public one.
pub(super) fn class_of(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(v4) => class_of_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => class_of_v4(v4).or_else(|| class_of_v6(v6)),
            None => class_of_v6(v6),
        },
    }
}

fn class_of_v4(address: Ipv4Addr) -> Option<AddressClass> {
    V4.iter().find(|(net, _)| net.contains(&address)).map(|&(_, class)| class)
}

fn class_of_v6(address: Ipv6Addr) -> Option<AddressClass> {
    V6.iter().find(|(net, _)| net.contains(&address)).map(|&(_, class)| class)
}

/// The IPv4 address inside a mapped, translated, compatible, NAT64 or 6to4 one.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if SIX_TO_FOUR.contains(&address) {
        let bits = (address.to_bits() >> 80) & u128::from(u32::MAX);
        return u32::try_from(bits).ok().map(Ipv4Addr::from_bits);
    }
    let last = address.to_bits() & u128::from(u32::MAX);
    let carries = V4_IN_THE_LAST_32_BITS.iter().any(|net| net.contains(&address));
    // `::` and `::1` are addresses of their own, not compatible forms of 0.0.0.0 and 0.0.0.1.
    let own = address.is_unspecified() || address.is_loopback();
    if carries && !own { u32::try_from(last).ok().map(Ipv4Addr::from_bits) } else { None }
}

const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

const V4_IN_THE_LAST_32_BITS: &[Ipv6Net] = &[
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),           // mapped
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),           // translated (SIIT)
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),                // compatible, deprecated
    v6([0x0064, 0xff9b, 0, 0, 0, 0, 0, 0], 96),      // NAT64, well-known prefix
    v6([0x0064, 0xff9b, 0x0001, 0, 0, 0, 0, 0], 48), // NAT64, local prefixes
];

/// From the IANA special-purpose registry for IPv4, plus one metadata service outside of it.
const V4: &[(Ipv4Net, AddressClass)] = &[
    (v4(0, 0, 0, 0, 8), AddressClass::Unspecified),
    (v4(10, 0, 0, 0, 8), AddressClass::Private),
    (v4(100, 64, 0, 0, 10), AddressClass::CarrierNat),
    (v4(127, 0, 0, 0, 8), AddressClass::Loopback),
    (v4(168, 63, 129, 16, 32), AddressClass::Metadata), // Azure's host agent, reachable from every virtual machine
    (v4(169, 254, 0, 0, 16), AddressClass::LinkLocal),
    (v4(172, 16, 0, 0, 12), AddressClass::Private),
    (v4(192, 0, 0, 0, 24), AddressClass::Reserved), // protocol assignments, Oracle's metadata service among them
    (v4(192, 0, 2, 0, 24), AddressClass::Reserved),
    (v4(192, 88, 99, 0, 24), AddressClass::Reserved), // 6to4 relays, deprecated
    (v4(192, 168, 0, 0, 16), AddressClass::Private),
    (v4(198, 18, 0, 0, 15), AddressClass::Reserved),
    (v4(198, 51, 100, 0, 24), AddressClass::Reserved),
    (v4(203, 0, 113, 0, 24), AddressClass::Reserved),
    (v4(224, 0, 0, 0, 4), AddressClass::Multicast),
    (v4(240, 0, 0, 0, 4), AddressClass::Reserved),
];

/// From the IANA special-purpose registry for IPv6. Tunnels that hide their IPv4 end (Teredo) and local NAT64
/// prefixes are refused as a whole.
const V6: &[(Ipv6Net, AddressClass)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), AddressClass::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), AddressClass::Loopback),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), AddressClass::Reserved),
    (v6([0x0064, 0xff9b, 0x0001, 0, 0, 0, 0, 0], 48), AddressClass::Private),
    (v6([0x0100, 0, 0, 0, 0, 0, 0, 0], 48), AddressClass::Reserved), // discard, dummy
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), AddressClass::Reserved), // Teredo, benchmarks, ORCHID
    (v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), AddressClass::Reserved),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), AddressClass::Reserved),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), AddressClass::Reserved), // segment routing
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), AddressClass::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), AddressClass::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), AddressClass::Private), // site-local, deprecated
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), AddressClass::Multicast),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expect: Option<AddressClass>) {
        assert_eq!(class_of(address.parse().unwrap()), expect, "{address}");
    }

    #[test]
    fn what_is_not_public_is_recognised() {
        use AddressClass::*;
        for (address, class) in [
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("10.0.0.1", Private),
            ("100.64.0.1", CarrierNat),
            ("100.100.100.200", CarrierNat),
            ("100.127.255.255", CarrierNat),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("168.63.129.16", Metadata),
            ("169.254.169.254", LinkLocal),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.0.0.192", Reserved),
            ("192.0.2.1", Reserved),
            ("192.88.99.1", Reserved),
            ("192.168.1.1", Private),
            ("198.18.0.1", Reserved),
            ("198.19.255.255", Reserved),
            ("198.51.100.1", Reserved),
            ("203.0.113.1", Reserved),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("240.0.0.1", Reserved),
            ("255.255.255.255", Reserved),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::2", Unspecified),
            ("::10.0.0.1", Private),
            ("::8.8.8.8", Reserved),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:169.254.169.254", LinkLocal),
            ("::ffff:0:10.0.0.1", Private),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b::a9fe:a9fe", LinkLocal),
            ("64:ff9b:1::8.8.8.8", Private),
            ("100::1", Reserved),
            ("2001::1", Reserved),
            ("2001:2::1", Reserved),
            ("2001:db8::1", Reserved),
            ("2002:0a00:0001::1", Private),
            ("2002:7f00:0001::1", Loopback),
            ("2002:c0a8:0101::", Private),
            ("3fff::1", Reserved),
            ("5f00::1", Reserved),
            ("fc00::1", Private),
            ("fd00:ec2::254", Private),
            ("fd20:ce::254", Private),
            ("fe80::1", LinkLocal),
            ("fec0::1", Private),
            ("ff02::1", Multicast),
        ] {
            check(address, Some(class));
        }
    }

    #[test]
    fn what_is_public_passes() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:0808:0808::1",
        ] {
            check(address, None);
        }
    }
}
