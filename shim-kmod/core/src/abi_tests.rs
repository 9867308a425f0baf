use crate::abi::*;

#[test]
fn requests_are_those_of_the_kernel_headers() {
    // _IOWR(0xe7, 0, 40), _IOWR(0xe7, 6, 552)
    assert_eq!(HELLO, 0xc028_e700);
    assert_eq!(NEXT, 0xc228_e706);
}

#[test]
fn texts_are_padded_and_nothing_else() {
    assert_eq!(field::<4>("abc"), Some(*b"abc\0"));
    assert_eq!(field::<4>("abcd"), None);
    assert_eq!(field::<4>("a\0"), None);
    assert_eq!(text(b"abc\0"), Some("abc"));
    assert_eq!(text(b"abcd"), None);
    assert_eq!(text(b"\0\0"), None);
    assert_eq!(text(b"a\0b\0"), None);
    assert_eq!(text(b"\xff\0"), None);
}
