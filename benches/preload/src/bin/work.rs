//! Runs one workload and prints its seconds. `work NAME SCALE`

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a workload");
    let scale = arguments.next().and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    println!("{}", preload::work::time(&name, scale).expect("a known workload"));
}
