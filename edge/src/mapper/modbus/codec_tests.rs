#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use proptest::prelude::*;

use super::*;
use crate::twin::value::{boolean, double, int, text};

fn visitor(scale: f64, is_swap: bool, is_register_swap: bool) -> v1::ModbusVisitor {
    v1::ModbusVisitor {
        scale,
        is_swap,
        is_register_swap,
        ..Default::default()
    }
}

fn words(data_type: DataType, count: usize, scale: f64) -> Codec {
    Codec::new(
        data_type,
        count,
        false,
        &visitor(scale, false, false),
        (None, None),
    )
    .unwrap()
}

fn decode(codec: &Codec, words: &[u16]) -> v1::Value {
    codec.decode(&Raw::Words(words.to_vec())).unwrap()
}

#[test]
fn a_double_of_one_register_is_a_scaled_signed_integer() {
    let codec = words(DataType::Double, 1, 0.1);
    assert_eq!(decode(&codec, &[235]), double(23.5));
    assert_eq!(decode(&codec, &[3]), double(0.3));
    assert_eq!(decode(&codec, &[(-55i16).cast_unsigned()]), double(-5.5));
    assert_eq!(
        codec.encode(&double(23.46), false).unwrap(),
        Raw::Words(vec![235])
    );
    assert_eq!(codec.encode(&text("23.5"), false).unwrap(), Raw::Words(vec![235]));
}

#[test]
fn integers_are_signed_and_exact_in_every_width() {
    assert_eq!(decode(&words(DataType::Int, 1, 0.0), &[0xFFFF]), int(-1));
    assert_eq!(decode(&words(DataType::Int, 2, 1.0), &[1, 2]), int(65_538));
    let wide = words(DataType::Int, 4, 1.0);
    for number in [i64::MIN, i64::MAX, (1 << 53) + 1] {
        let raw = wide.encode(&int(number), false).unwrap();
        assert_eq!(wide.decode(&raw).unwrap(), int(number));
        assert_eq!(wide.encode(&text(number.to_string()), false).unwrap(), raw);
    }
}

#[test]
fn swaps_are_of_bytes_and_of_registers() {
    let of = |is_swap, is_register_swap| {
        Codec::new(
            DataType::Int,
            2,
            false,
            &visitor(1.0, is_swap, is_register_swap),
            (None, None),
        )
        .unwrap()
    };
    let number = int(0x0102_0304);
    for (bytes, registers, raw) in [
        (false, false, [0x0102, 0x0304]),
        (true, false, [0x0201, 0x0403]),
        (false, true, [0x0304, 0x0102]),
        (true, true, [0x0403, 0x0201]),
    ] {
        assert_eq!(decode(&of(bytes, registers), &raw), number);
        assert_eq!(
            of(bytes, registers).encode(&number, false).unwrap(),
            Raw::Words(raw.to_vec())
        );
    }
}

#[test]
fn floats_are_shown_as_the_shortest_number_that_means_them() {
    let codec = words(DataType::Float, 2, 0.0);
    let raw = codec.encode(&double(23.4), false).unwrap();
    assert_eq!(codec.decode(&raw).unwrap(), double(23.4));
    assert!(
        codec
            .encode(&double(1e39), false)
            .unwrap_err()
            .to_string()
            .contains("32-bit float")
    );
}

#[test]
fn text_ends_at_the_first_zero_byte() {
    let codec = words(DataType::String, 3, 0.0);
    assert_eq!(decode(&codec, &[0x6142, 0x6300, 0x7A7A]), text("aBc"));
    assert_eq!(
        codec.encode(&text("aBc"), false).unwrap(),
        Raw::Words(vec![0x6142, 0x6300, 0])
    );
    assert_eq!(
        codec.decode(&Raw::Words(vec![0xFFFF; 3])),
        Err(DecodeError::NotText)
    );
    assert!(codec.encode(&text("1234567"), false).is_err());
    assert!(codec.encode(&text("a\0b"), false).is_err());
}

#[test]
fn refusals_name_the_value_and_the_range() {
    let limits = (Some(0.0), Some(100.0));
    let codec = Codec::new(DataType::Double, 1, false, &visitor(0.1, false, false), limits).unwrap();
    let err = codec.encode(&double(250.0), false).unwrap_err().to_string();
    assert_eq!(err, "250 is outside 0 to 100 (the device model's range)");
    let err = words(DataType::Double, 1, 0.1)
        .encode(&double(4000.0), false)
        .unwrap_err()
        .to_string();
    assert_eq!(err, "4000 does not fit 16 bits (range -3276.8 to 3276.7)");
    let err = words(DataType::Int, 1, 1.0)
        .encode(&double(1.5), false)
        .unwrap_err()
        .to_string();
    assert_eq!(err, "1.5 is not a whole number");
    let err = words(DataType::Int, 1, 1.0)
        .encode(&text("warm"), false)
        .unwrap_err()
        .to_string();
    assert_eq!(err, "\"warm\" is not a number");
    assert!(
        words(DataType::Int, 4, 1.0)
            .encode(&double(2f64.powi(63)), false)
            .is_err()
    );
    assert!(
        words(DataType::Double, 4, 1.0)
            .encode(&double(f64::NAN), false)
            .is_err()
    );
}

#[test]
fn booleans_are_bits_or_registers_that_are_not_zero() {
    let coil = Codec::new(
        DataType::Boolean,
        1,
        true,
        &visitor(0.0, false, false),
        (None, None),
    )
    .unwrap();
    assert_eq!(coil.decode(&Raw::Bits(vec![true])).unwrap(), boolean(true));
    assert_eq!(coil.encode(&text("true"), true).unwrap(), Raw::Bits(vec![true]));
    let register = words(DataType::Boolean, 1, 0.0);
    assert_eq!(decode(&register, &[0x0100]), boolean(true));
    assert!(register.holds(&Raw::Words(vec![1]), &Raw::Words(vec![0x0100])));
    assert!(!register.holds(&Raw::Words(vec![1]), &Raw::Words(vec![0])));
}

#[test]
fn coils_can_be_read_as_an_unsigned_integer() {
    let codec = Codec::new(DataType::Int, 3, true, &visitor(0.0, false, false), (None, None)).unwrap();
    assert_eq!(codec.decode(&Raw::Bits(vec![false, true, true])).unwrap(), int(6));
    assert_eq!(
        codec.encode(&int(6), true).unwrap(),
        Raw::Bits(vec![false, true, true])
    );
    assert!(codec.encode(&int(8), true).is_err());
    assert!(codec.encode(&int(-1), true).is_err());
}

#[test]
fn scaled_integers_are_compared_in_register_space() {
    let codec = words(DataType::Int, 1, 0.1);
    let target = codec.encode(&int(21), false).unwrap();
    assert_eq!(target, Raw::Words(vec![210]));
    assert!(!codec.holds(&target, &Raw::Words(vec![211])));
    let float = words(DataType::Float, 2, 0.0);
    assert!(float.holds(&Raw::Words(vec![0, 0]), &Raw::Words(vec![0x8000, 0])));
}

const TYPES: [DataType; 8] = [
    DataType::Unspecified,
    DataType::Int,
    DataType::Float,
    DataType::Double,
    DataType::String,
    DataType::Boolean,
    DataType::Bytes,
    DataType::Stream,
];

fn any_value() -> impl Strategy<Value = v1::Value> {
    prop_oneof![
        any::<f64>().prop_map(double),
        any::<i64>().prop_map(int),
        ".{0,12}".prop_map(text),
        any::<bool>().prop_map(boolean),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| v1::Value {
            value: Some(Kind::Bytes(bytes))
        }),
        Just(v1::Value::default()),
    ]
}

proptest! {
    #[test]
    fn nothing_panics_whatever_the_specification_says(
        data_type in proptest::sample::select(TYPES.to_vec()),
        count in 0usize..200,
        in_bits: bool,
        (scale, swap, register_swap) in (any::<f64>(), any::<bool>(), any::<bool>()),
        limits in (any::<Option<f64>>(), any::<Option<f64>>()),
        answer in proptest::collection::vec(any::<u16>(), 0..200),
        wanted in any_value(),
    ) {
        let Ok(codec) = Codec::new(data_type, count, in_bits, &visitor(scale, swap, register_swap), limits) else {
            return Ok(());
        };
        let _ = codec.decode(&Raw::Words(answer.clone()));
        let _ = codec.decode(&Raw::Bits(answer.iter().map(|word| word & 1 == 1).collect()));
        if let Ok(target) = codec.encode(&wanted, in_bits) {
            let len = match &target {
                Raw::Words(words) => words.len(),
                Raw::Bits(bits) => bits.len(),
            };
            prop_assert_eq!(len, count);
            // Scales near the ends of the doubles can overflow on the way back; holding is reflexive all the same.
            prop_assert!(codec.holds(&target, &target));
        }
    }

    #[test]
    fn integers_come_back_exactly(raw in any::<u64>(), count in proptest::sample::select(vec![1usize, 2, 4]), swap: bool, register_swap: bool) {
        let codec = Codec::new(DataType::Int, count, false, &visitor(1.0, swap, register_swap), (None, None)).unwrap();
        let held = Raw::Words(words_of(&raw.to_be_bytes()[8 - count * 2..]));
        let value = codec.decode(&held).unwrap();
        prop_assert_eq!(codec.encode(&value, false).unwrap(), held);
    }

    #[test]
    fn scaled_registers_come_back_exactly(raw: u16, scale in proptest::sample::select(vec![0.1, 0.01, 0.001, 0.25, 10.0, 0.3, -0.5, 1.0 / 3.0])) {
        let codec = words(DataType::Double, 1, scale);
        let held = Raw::Words(vec![raw]);
        let value = codec.decode(&held).unwrap();
        prop_assert_eq!(codec.encode(&value, false).unwrap(), held);
    }

    #[test]
    fn scaled_integers_come_back_within_one_step(raw: i32, scale in proptest::sample::select(vec![0.1, 0.01, 2.0, 10.0, 0.3])) {
        let codec = words(DataType::Int, 2, scale);
        let Kind::Int(value) = codec.decode(&codec_words(raw)).unwrap().value.unwrap() else { unreachable!() };
        // At the very end of the range rounding may leave the registers; that is an error, not a wrong number.
        if let Ok(back) = codec.encode(&int(value), false) {
            let Kind::Int(again) = codec.decode(&back).unwrap().value.unwrap() else { unreachable!() };
            prop_assert!((again - value).abs() <= 1 + scale.round() as i64, "{raw} at {scale}: {value} then {again}");
        }
    }

    #[test]
    fn floats_come_back_exactly(raw: f32, wide: f64) {
        prop_assume!(raw.is_finite() && wide.is_finite());
        let codec = words(DataType::Float, 2, 1.0);
        let held = Raw::Words(words_of(&raw.to_be_bytes()));
        prop_assert_eq!(codec.encode(&codec.decode(&held).unwrap(), false).unwrap(), held);
        let codec = words(DataType::Double, 4, 1.0);
        let held = Raw::Words(words_of(&wide.to_be_bytes()));
        prop_assert_eq!(codec.encode(&codec.decode(&held).unwrap(), false).unwrap(), held);
    }

    #[test]
    fn text_comes_back(written in "[^\0]{0,10}", swap: bool, register_swap: bool) {
        let codec = Codec::new(DataType::String, 20, false, &visitor(0.0, swap, register_swap), (None, None)).unwrap();
        let raw = codec.encode(&text(written.clone()), false).unwrap();
        prop_assert_eq!(codec.decode(&raw).unwrap(), text(written));
    }
}

fn codec_words(raw: i32) -> Raw {
    Raw::Words(words_of(&raw.to_be_bytes()))
}
