package streamseg.peers.flink;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import streamseg.peers.job.Change;
import streamseg.peers.job.Event;
import streamseg.peers.job.Profile;

/** Events in, changes out; profiles in keyed state. */
final class Segmenter extends KeyedProcessFunction<String, Event, Change> {
    private static final long serialVersionUID = 1;

    private transient ValueState<Profile> state;

    @Override
    public void open(OpenContext context) {
        state = getRuntimeContext().getState(new ValueStateDescriptor<>("profile", Profile.class));
    }

    @Override
    public void processElement(Event event, Context context, Collector<Change> changes) throws Exception {
        Profile profile = state.value();
        if (profile == null) {
            profile = new Profile();
        }
        Change change = Change.apply(profile, event);
        state.update(profile);
        if (change != null) {
            changes.collect(change);
        }
    }
}
